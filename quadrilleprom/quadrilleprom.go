// Package quadrilleprom exports the counters and gauges of a service to Prometheus, and the
// durations of its handlers.
//
// It promises stable names with the prefix quadrille_; docs/operations.md says what each one means.
// It serves no HTTP and has no registry: register what it returns where you like. Metrics of
// several services in one registry need a label each; see prometheus.WrapRegistererWith.
package quadrilleprom

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// Collector returns the counters and gauges of a service, which are read when they are collected.
func Collector(service *quadrille.Service) prometheus.Collector {
	c := collector{service: service, plain: metrics(),
		ends: desc("consumer_session_ends_total",
			"Sessions with the broker that ended or could not begin, by cause.", "cause"),
		open: desc("breaker_open", "1 while the breaker is open or half-open.", "breaker"),
		opened: desc("breaker_opened_total", "Number of times that the breaker opened.",
			"breaker"),
		refused: desc("breaker_refused_total",
			"Calls that were not made because the breaker was open.", "breaker")}
	return c
}

// collector reads the statistics of a service once for all metrics.
type collector struct {
	service               *quadrille.Service
	plain                 []metric
	ends                  *prometheus.Desc // by cause
	open, opened, refused *prometheus.Desc // by breaker
}

// metric is a number without labels.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(quadrille.Stats) float64
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("quadrille_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.plain {
		ch <- m.desc
	}
	for _, d := range []*prometheus.Desc{c.ends, c.open, c.opened, c.refused} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	stats := c.service.Stats()
	for _, m := range c.plain {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(stats))
	}
	// These causes are exported with 0 from the start.
	ends := map[string]int64{"network": 0, "topology": 0, "bytes": 0, "closed": 0}
	maps.Copy(ends, stats.SessionEnds)
	for cause, n := range ends {
		ch <- prometheus.MustNewConstMetric(c.ends, prometheus.CounterValue, float64(n), cause)
	}
	for _, b := range stats.Breakers {
		ch <- prometheus.MustNewConstMetric(c.open, prometheus.GaugeValue,
			one(b.State != admin.Closed), b.Name)
		ch <- prometheus.MustNewConstMetric(c.opened, prometheus.CounterValue, float64(b.Opened), b.Name)
		ch <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(b.Refused),
			b.Name)
	}
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func metrics() (all []metric) {
	count := func(name, help string, value func(quadrille.Stats) int64) {
		all = append(all, metric{desc(name, help), prometheus.CounterValue,
			func(s quadrille.Stats) float64 { return float64(value(s)) }})
	}
	gauge := func(name, help string, value func(quadrille.Stats) float64) {
		all = append(all, metric{desc(name, help), prometheus.GaugeValue, value})
	}
	count("outbox_published_total", "Events confirmed by the broker.",
		func(s quadrille.Stats) int64 { return s.Relay.Published })
	gauge("outbox_streaming",
		"1 while this replica leads and uses the stream instead of the window.",
		func(s quadrille.Stats) float64 { return one(s.Relay.Streaming) })
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
	count("consumer_batches_total", "Transactions of the consumer, each with a batch of events.",
		func(s quadrille.Stats) int64 { return s.Consumer.Batches })
	gauge("outbox_held_events", "Events that are held in the outbox.",
		func(s quadrille.Stats) float64 { return float64(s.Relay.Held) })
	return all
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
