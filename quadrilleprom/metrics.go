package quadrilleprom

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
)

// numbers are those of a service at one moment.
type numbers struct {
	*quadrille.Service
	quadrille.Stats
	quadrille.Backlog
	read bool // the backlog was read
}

// distribution is a histogram.
type distribution struct {
	count   uint64
	sum     float64
	buckets map[float64]uint64
}

// metric is one metric with all of its label values.
type metric struct {
	desc    *prometheus.Desc
	kind    prometheus.ValueType
	collect func(n numbers, value func(float64, ...string), histogram func(distribution))
}

// list is a list of metrics that is being made.
type list []metric

func metrics() []metric {
	var l list
	l.state()
	l.relay()
	l.waiting()
	l.consumer()
	l.outside()
	return l
}

// many adds a metric with labels. The function gives each of its values.
func (l *list) many(kind prometheus.ValueType, name, help string, labels []string,
	values func(n numbers, value func(float64, ...string))) {
	*l = append(*l, metric{prometheus.NewDesc("quadrille_"+name, help, labels, nil), kind,
		func(n numbers, value func(float64, ...string), _ func(distribution)) { values(n, value) }})
}

func (l *list) counter(name, help string, value func(numbers) int64) {
	l.many(prometheus.CounterValue, name, help, nil, func(n numbers, out func(float64, ...string)) {
		out(float64(value(n)))
	})
}

func (l *list) gauge(name, help string, value func(numbers) float64) {
	l.many(prometheus.GaugeValue, name, help, nil, func(n numbers, out func(float64, ...string)) {
		out(value(n))
	})
}

// backlog adds a gauge that exists only while the database answers.
func (l *list) backlog(name, help string, value func(numbers) float64) {
	l.many(prometheus.GaugeValue, name, help, nil, func(n numbers, out func(float64, ...string)) {
		if n.read {
			out(value(n))
		}
	})
}

// kinds is backlog for a number of each kind. The kinds that are named are exported with 0, too.
func (l *list) kinds(name, help string, kinds []string, values func(numbers) map[string]int64) {
	l.many(prometheus.GaugeValue, name, help, []string{"kind"},
		func(n numbers, out func(float64, ...string)) {
			if n.read {
				named(kinds, values(n), out)
			}
		})
}

func (l *list) histogram(name, help string, value func(numbers) distribution) {
	*l = append(*l, metric{desc: prometheus.NewDesc("quadrille_"+name, help, nil, nil),
		collect: func(n numbers, _ func(float64, ...string), out func(distribution)) { out(value(n)) }})
}

// named exports values by their names, and 0 for the names that have none.
func named(names []string, values map[string]int64, out func(float64, ...string)) {
	all := map[string]int64{}
	for _, name := range names {
		all[name] = 0
	}
	maps.Copy(all, values)
	for name, n := range all {
		out(float64(n), name)
	}
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// state adds what a service is and whether it works.
func (l *list) state() {
	l.many(prometheus.GaugeValue, "build_info", "1, with the version of the kit and of Go.",
		[]string{"service", "version", "goversion"}, func(n numbers, out func(float64, ...string)) {
			version, goVersion := build()
			out(1, n.Name(), version, goVersion)
		})
	l.many(prometheus.GaugeValue, "topology_info", "1, with the topology that the service was built "+
		"with; the marker contains its hash.", []string{"topology", "marker"},
		func(n numbers, out func(float64, ...string)) {
			if t := n.Config().Topology; t.Name != "" { // without one, the service declares its own part
				out(1, t.Name, t.Marker())
			}
		})
	l.gauge("database_up", "1 while the database answers the query for what waits.",
		func(n numbers) float64 { return one(n.read) })
	l.gauge("broker_connected", "1 while there is a session with the broker in which the service may "+
		"publish and consume.", func(n numbers) float64 { return one(n.Connected()) })
	l.gauge("broker_blocked", "1 while the broker blocks publishing, because of an alarm.",
		func(n numbers) float64 { return one(n.Relay.Blocked) })
	l.gauge("consuming", "1 while the service handles deliveries.",
		func(n numbers) float64 { return one(n.read && n.Healthy() == nil) })
}

// relay adds what the relay has done.
func (l *list) relay() {
	l.gauge("outbox_leading", "1 while this replica leads the relay.",
		func(n numbers) float64 { return one(n.Relay.Leading) })
	l.counter("outbox_published_total", "Events confirmed by the broker, without replays.",
		func(n numbers) int64 { return n.Relay.Published })
	l.many(prometheus.CounterValue, "outbox_attempts_total",
		"Attempts to publish an event, by result.", []string{"result"},
		func(n numbers, out func(float64, ...string)) {
			r := n.Relay
			named(nil, map[string]int64{"confirmed": r.Confirmed, "unrouted": r.Unrouted,
				"refused": r.Refused, "unroutable": r.Unroutable, "unsendable": r.Unsendable,
				"lost": r.Lost}, out)
		})
	l.histogram("outbox_confirm_seconds", "Time from publishing an event to its confirm.",
		func(n numbers) distribution { return distributed(n.Relay.Latency) })
	l.gauge("outbox_streaming",
		"1 while this replica leads and uses the stream instead of the window.",
		func(n numbers) float64 { return one(n.Relay.Streaming) })
	l.gauge("outbox_slot_lag_bytes", "Bytes of log that PostgreSQL keeps for the stream.",
		func(n numbers) float64 { return float64(n.Relay.LagBytes) })
	l.counter("outbox_unrouted_total", "Events published while no queue was bound for their type.",
		func(n numbers) int64 { return n.Relay.Unrouted })
	l.counter("outbox_anomalies_total", "Windows with a missing event, and cursors that another "+
		"program changed.", func(n numbers) int64 { return n.Relay.Anomalies })
	l.gauge("outbox_oldest_snapshot_seconds", "Age of the oldest transaction that keeps old row "+
		"versions, if it is above five minutes.",
		func(n numbers) float64 { return float64(n.Relay.OldestSec) })
	l.counter("outbox_forgotten_total", "Published events that were deleted because of their age.",
		func(n numbers) int64 { return n.Relay.Forgotten })
	l.many(prometheus.CounterValue, "relay_session_ends_total",
		"Sessions of the relay with the broker that ended or could not begin, by cause.",
		[]string{"cause"}, func(n numbers, out func(float64, ...string)) {
			named(causes(), n.RelaySessionEnds, out)
		})
}

// causes are the ends of a session that are exported with 0 from the start.
func causes() []string { return []string{"network", "topology", "bytes", "closed"} }

// outside adds the breakers around outside calls.
func (l *list) outside() {
	breakers := func(kind prometheus.ValueType, name, help string,
		value func(admin.Breaker) float64) {
		l.many(kind, name, help, []string{"breaker"}, func(n numbers, out func(float64, ...string)) {
			for _, b := range n.Breakers {
				out(value(b), b.Name)
			}
		})
	}
	breakers(prometheus.GaugeValue, "breaker_open", "1 while the breaker is open or half-open.",
		func(b admin.Breaker) float64 { return one(b.State != admin.Closed) })
	breakers(prometheus.CounterValue, "breaker_opened_total",
		"Number of times that the breaker opened.",
		func(b admin.Breaker) float64 { return float64(b.Opened) })
	breakers(prometheus.CounterValue, "breaker_refused_total",
		"Calls that were not made because the breaker was open.",
		func(b admin.Breaker) float64 { return float64(b.Refused) })
}
