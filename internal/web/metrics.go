package web

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quadrille-go/quadrille"
)

// metrics returns the counters and gauges of a service.
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
		"1 while this replica leads and streams, instead of reading through the window.",
		func(s quadrille.Stats) float64 {
			if s.Relay.Streaming {
				return 1
			}
			return 0
		})
	gauge("outbox_slot_lag_bytes", "Log that the server keeps for the stream.",
		func(s quadrille.Stats) float64 { return float64(s.Relay.LagBytes) })
	count("outbox_unrouted_total", "Events that were published while no queue was bound for them.",
		func(s quadrille.Stats) int64 { return s.Relay.Unrouted })
	count("outbox_anomalies_total", "Windows that lacked an event, and cursors that somebody else "+
		"has written.", func(s quadrille.Stats) int64 { return s.Relay.Anomalies })
	gauge("outbox_oldest_snapshot_seconds", "Age of the oldest transaction that keeps old versions "+
		"of rows, when it is above five minutes.",
		func(s quadrille.Stats) float64 { return float64(s.Relay.OldestSec) })
	count("outbox_forgotten_total", "Events whose time in the outbox has passed.",
		func(s quadrille.Stats) int64 { return s.Relay.Forgotten })
	count("events_handled_total", "Events that took effect.",
		func(s quadrille.Stats) int64 { return s.Consumer.Handled })
	count("inbox_duplicates_total", "Deliveries of events that had taken effect before.",
		func(s quadrille.Stats) int64 { return s.Consumer.Duplicates })
	count("events_delayed_total", "Failed attempts that are made again.",
		func(s quadrille.Stats) int64 { return s.Consumer.Delayed })
	count("events_parked_total", "Events that were parked.",
		func(s quadrille.Stats) int64 { return s.Consumer.Parked })
	count("malformed_dropped_total", "Malformed messages that were not kept, since too many of "+
		"their exchange are parked.", func(s quadrille.Stats) int64 { return s.Consumer.Dropped })
	gauge("handlers_hanging", "Runs of handlers that have not returned although their time is over.",
		func(s quadrille.Stats) float64 { return float64(s.Consumer.Hanging) })
	registry.MustRegister(sessionEnds{service})
	count("consumer_batches_total", "Transactions of the consumer.",
		func(s quadrille.Stats) int64 { return s.Consumer.Batches })
	gauge("outbox_held_events", "Rows that the broker has not taken.",
		func(s quadrille.Stats) float64 { return float64(s.Relay.Held) })
	for _, b := range service.Breakers {
		labels := prometheus.Labels{"breaker": b.Name}
		registry.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quadrille_breaker_open",
				Help: "1 while the breaker is not closed.", ConstLabels: labels},
				func() float64 {
					if b.Stats().State == "closed" {
						return 0
					}
					return 1
				}),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quadrille_breaker_opened_total",
				Help: "Times that the breaker opened.", ConstLabels: labels},
				func() float64 { return float64(b.Stats().Opened) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quadrille_breaker_refused_total",
				Help: "Calls that were not made.", ConstLabels: labels},
				func() float64 { return float64(b.Stats().Refused) }))
	}
	return registry
}

// sessionEnds collects why sessions of the consumer ended. The causes are not known beforehand.
type sessionEnds struct{ service *quadrille.Service }

var sessionEndsDesc = prometheus.NewDesc("quadrille_consumer_session_ends_total",
	"Sessions with the broker that ended or did not begin, by their cause.", []string{"cause"}, nil)

// Describe is the collector's.
func (s sessionEnds) Describe(ch chan<- *prometheus.Desc) { ch <- sessionEndsDesc }

// Collect is the collector's.
func (s sessionEnds) Collect(ch chan<- prometheus.Metric) {
	// shown from the start
	ends := map[string]int64{"network": 0, "topology": 0, "bytes": 0, "closed": 0}
	maps.Copy(ends, s.service.SessionEnds())
	for cause, n := range ends {
		ch <- prometheus.MustNewConstMetric(sessionEndsDesc, prometheus.CounterValue, float64(n), cause)
	}
}
