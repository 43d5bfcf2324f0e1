// Package quadrilleprom exports the counters and gauges of a service to Prometheus, and the
// durations of its handlers.
//
// It promises stable names with the prefix quadrille_; docs/operations.md says what each one means.
// It serves no HTTP: hand the registry to promhttp.
package quadrilleprom

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// Registry returns a registry with the counters and gauges of a service. They are read when the
// registry is collected.
func Registry(service *quadrille.Service) *prometheus.Registry {
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
	registry.MustRegister(breakers{service})
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

// breakers exports the circuit breakers of a service, which its components know.
type breakers struct{ service *quadrille.Service }

// Describe implements prometheus.Collector.
func (b breakers) Describe(ch chan<- *prometheus.Desc) {
	ch <- breakerOpen()
	ch <- breakerOpened()
	ch <- breakerRefused()
}

// Collect implements prometheus.Collector.
func (b breakers) Collect(ch chan<- prometheus.Metric) {
	for _, state := range b.service.Breakers() {
		open := 1.0
		if state.State == "closed" {
			open = 0
		}
		ch <- prometheus.MustNewConstMetric(breakerOpen(), prometheus.GaugeValue, open, state.Name)
		ch <- prometheus.MustNewConstMetric(breakerOpened(), prometheus.CounterValue,
			float64(state.Opened), state.Name)
		ch <- prometheus.MustNewConstMetric(breakerRefused(), prometheus.CounterValue,
			float64(state.Refused), state.Name)
	}
}

func breakerOpen() *prometheus.Desc {
	return prometheus.NewDesc("quadrille_breaker_open", "1 while the breaker is open or half-open.",
		[]string{"breaker"}, nil)
}

func breakerOpened() *prometheus.Desc {
	return prometheus.NewDesc("quadrille_breaker_opened_total",
		"Number of times that the breaker opened.", []string{"breaker"}, nil)
}

func breakerRefused() *prometheus.Desc {
	return prometheus.NewDesc("quadrille_breaker_refused_total",
		"Calls that were not made because the breaker was open.", []string{"breaker"}, nil)
}

// Durations returns a middleware that observes how long each handler, reaction and outside call
// takes, in seconds, by the type of the event and by whether it failed. It registers one histogram,
// quadrille_handler_seconds.
func Durations(r prometheus.Registerer) consumer.Middleware {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "quadrille_handler_seconds",
		Help: "Duration of handlers, reactions and outside calls."}, []string{"type", "failed"})
	r.MustRegister(seconds)
	return func(next consumer.Next) consumer.Next {
		return func(ctx context.Context, e events.Event) error {
			began := time.Now()
			err := next(ctx, e)
			seconds.WithLabelValues(e.Data.EventType(), strconv.FormatBool(err != nil)).
				Observe(time.Since(began).Seconds())
			return err
		}
	}
}
