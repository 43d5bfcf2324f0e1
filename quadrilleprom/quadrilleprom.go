// Package quadrilleprom exports the counters and gauges of a service to Prometheus, the durations
// of its handlers, and those of HTTP requests.
//
// It promises stable names with the prefix quadrille_, and labels whose values come from the
// program and its topology, never from a message; docs/metrics.md lists them. It serves no HTTP and
// has no registry: register what it returns where you like. Metrics of several services in one
// registry need a label each; see prometheus.WrapRegistererWith.
package quadrilleprom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quadrille-go/quadrille"
)

// Collector returns the counters and gauges of a service, which are read when they are collected.
// What waits in the database is read at most every five seconds. A collection never waits for a
// database that does not answer for longer than two seconds: its gauges are missing then, and
// quadrille_database_up is 0.
//
// A component of the service that is a prometheus.Collector is collected, too.
func Collector(service *quadrille.Service) prometheus.Collector {
	c := collector{service: service, waiting: &cache{read: service.Backlog}, metrics: metrics()}
	for _, component := range service.Config().Components {
		if more, ok := component.(prometheus.Collector); ok {
			c.components = append(c.components, more)
		}
	}
	return c
}

// collector reads the numbers of a service once for all metrics.
type collector struct {
	service    *quadrille.Service
	waiting    *cache
	metrics    []metric
	components []prometheus.Collector
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		ch <- m.desc
	}
	for _, more := range c.components {
		more.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	n := numbers{Service: c.service, Stats: c.service.Stats()}
	n.Backlog, n.read = c.waiting.get()
	for _, m := range c.metrics {
		m.collect(n, func(value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
		}, func(d distribution) {
			ch <- prometheus.MustNewConstHistogram(m.desc, d.count, d.sum, d.buckets)
		})
	}
	for _, more := range c.components {
		more.Collect(ch)
	}
}
