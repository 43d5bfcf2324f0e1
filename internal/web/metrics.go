package web

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quadrille-go/quadrille"
)

// metrics returns a registry with the counters and gauges of a service.
func metrics(service *quadrille.Service) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	count := func(name, help string, value func(quadrille.Stats) int64) {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quadrille_" + name,
			Help: help},
			func() float64 { return float64(value(service.Stats())) }))
	}
	gauge := func(name, help string, value func(quadrille.Stats) float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quadrille_" + name,
			Help: help},
			func() float64 { return value(service.Stats()) }))
	}
	count("outbox_published_total", "Events confirmed by the broker.",
		func(s quadrille.Stats) int64 { return s.Relay.Published })
	gauge("outbox_streaming",
		"1 while this replica leads and uses the stream instead of the window.",
		func(s quadrille.Stats) float64 {
			if s.Relay.Streaming {
				return 1
			}
			return 0
		})
	gauge("outbox_slot_lag_bytes", "Bytes of log that PostgreSQL keeps for the stream.",
		func(s quadrille.Stats) float64 { return float64(s.Relay.LagBytes) })
	count("outbox_unrouted_total", "Events published while no queue was bound for their type.",
		func(s quadrille.Stats) int64 { return s.Relay.Unrouted })
	count("outbox_anomalies_total", "Windows with a missing event, and cursors that another "+
		"program changed.", func(s quadrille.Stats) int64 { return s.Relay.Anomalies })
	gauge("outbox_oldest_snapshot_seconds", "Age of the oldest transaction that keeps old row "+
		"versions, if it is above five minutes.",
		func(s quadrille.Stats) float64 { return float64(s.Relay.OldestSec) })
	count("outbox_forgotten_total", "Published events that were deleted because of their age.",
		func(s quadrille.Stats) int64 { return s.Relay.Forgotten })
	count("events_handled_total", "Events that were handled.",
		func(s quadrille.Stats) int64 { return s.Consumer.Handled })
	count("inbox_duplicates_total", "Deliveries of events that were handled before.",
		func(s quadrille.Stats) int64 { return s.Consumer.Duplicates })
	count("events_delayed_total", "Failed attempts that will be retried.",
		func(s quadrille.Stats) int64 { return s.Consumer.Delayed })
	count("events_parked_total", "Events that were parked.",
		func(s quadrille.Stats) int64 { return s.Consumer.Parked })
	count("malformed_dropped_total", "Malformed messages beyond those that are kept.",
		func(s quadrille.Stats) int64 { return s.Consumer.Dropped })
	gauge("handlers_hanging", "Handler runs that have not returned after their time-out.",
		func(s quadrille.Stats) float64 { return float64(s.Consumer.Hanging) })
	registry.MustRegister(sessionEnds{service})
	count("consumer_batches_total", "Transactions of the consumer, each with a batch of events.",
		func(s quadrille.Stats) int64 { return s.Consumer.Batches })
	gauge("outbox_held_events", "Events that are held in the outbox.",
		func(s quadrille.Stats) float64 { return float64(s.Relay.Held) })
	for _, b := range service.Breakers {
		labels := prometheus.Labels{"breaker": b.Name}
		registry.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quadrille_breaker_open",
				Help: "1 while the breaker is open or half-open.", ConstLabels: labels},
				func() float64 {
					if b.Stats().State == "closed" {
						return 0
					}
					return 1
				}),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quadrille_breaker_opened_total",
				Help: "Number of times that the breaker opened.", ConstLabels: labels},
				func() float64 { return float64(b.Stats().Opened) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quadrille_breaker_refused_total",
				Help: "Calls that were not made because the breaker was open.", ConstLabels: labels},
				func() float64 { return float64(b.Stats().Refused) }))
	}
	return registry
}

// sessionEnds counts the ends of consumer sessions by cause. It is a collector of its own because
// the causes are not known in advance.
type sessionEnds struct{ service *quadrille.Service }

var sessionEndsDesc = prometheus.NewDesc("quadrille_consumer_session_ends_total",
	"Sessions with the broker that ended or could not begin, by cause.", []string{"cause"}, nil)

// Describe implements prometheus.Collector.
func (s sessionEnds) Describe(ch chan<- *prometheus.Desc) { ch <- sessionEndsDesc }

// Collect implements prometheus.Collector.
func (s sessionEnds) Collect(ch chan<- prometheus.Metric) {
	// These causes are exported with 0 from the start.
	ends := map[string]int64{"network": 0, "topology": 0, "bytes": 0, "closed": 0}
	maps.Copy(ends, s.service.SessionEnds())
	for cause, n := range ends {
		ch <- prometheus.MustNewConstMetric(sessionEndsDesc, prometheus.CounterValue, float64(n), cause)
	}
}
