package quadrilleprom

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// module is the kit's own, whose version a program was built with.
const module = "github.com/quadrille-go/quadrille"

// build returns the version of the kit in this program, and that of Go.
func build() (version, goVersion string) {
	version = "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == module {
				version = m.Version
			}
		}
	}
	return version, runtime.Version()
}

// waiting adds what waits in the database.
func (l *list) waiting() {
	l.backlog("outbox_unpublished_events", "Events that the relay has not reached, up to 10000.",
		func(n numbers) float64 { return float64(n.Unpublished) })
	l.backlog("outbox_oldest_unpublished_seconds", "Age of the oldest of these events.",
		func(n numbers) float64 { return n.UnpublishedAge.Seconds() })
	l.kinds("outbox_held_events",
		"Events that the broker did not accept and those behind them, up to 10000, by kind.",
		[]string{"refused", "unroutable", "quarantined", "behind", "unseen"},
		func(n numbers) map[string]int64 { return n.Held })
	pending := []string{"retry", "deadline", "call", "unknown"}
	l.kinds("parked_events", "Events that wait for a person, up to 10000, by kind.",
		append([]string{"evidence"}, pending...),
		func(n numbers) map[string]int64 { return n.Parked })
	l.backlog("parked_oldest_seconds", "Age of the oldest parked event.",
		func(n numbers) float64 { return n.ParkedAge.Seconds() })
	l.kinds("pending_events", "What waits for its time, up to 10000 of each type, by kind.", pending,
		func(n numbers) map[string]int64 { return n.Pending })
	l.kinds("pending_due_events", "What waits although its time has come, by kind.", pending,
		func(n numbers) map[string]int64 { return n.Due })
	l.kinds("pending_overdue_events", "What waits although its time came more than a minute ago, by "+
		"kind.", pending, func(n numbers) map[string]int64 { return n.Overdue })
	l.backlog("pending_late_seconds", "For how long the time of the latest of them has come.",
		func(n numbers) float64 { return n.DueAge.Seconds() })
}

// consumer adds what was done about events.
func (l *list) consumer() {
	byType := []string{"type", "result"}
	l.many(prometheus.CounterValue, "events_processed_total", "Events by type and result.", byType,
		func(n numbers, out func(float64, ...string)) {
			for key, count := range n.Events {
				out(float64(count), key.Type, key.Result)
			}
		})
	l.many(prometheus.CounterValue, "calls_total", "Outside calls by type and result.", byType,
		func(n numbers, out func(float64, ...string)) {
			for key, count := range n.Calls {
				out(float64(count), key.Type, key.Result)
			}
		})
	l.histogram("delivery_commit_seconds", "Time from a delivery to the end of its transaction.",
		func(n numbers) distribution { return distributed(n.Handling) })
	l.histogram("event_lag_seconds", "Age of an event when it was handled, by its own time.",
		func(n numbers) distribution { return distributed(n.Lag) })
	l.counter("malformed_dropped_total", "Malformed messages beyond those that are kept.",
		func(n numbers) int64 { return n.Consumer.Dropped })
	l.gauge("handlers_hanging", "Handler runs that have not returned after their time-out.",
		func(n numbers) float64 { return float64(n.Consumer.Hanging) })
	l.counter("consumer_batches_total", "Transactions of the consumer, each with a batch of events.",
		func(n numbers) int64 { return n.Consumer.Batches })
	l.many(prometheus.CounterValue, "consumer_session_ends_total",
		"Sessions with the broker that ended or could not begin, by cause.", []string{"cause"},
		func(n numbers, out func(float64, ...string)) { named(causes(), n.SessionEnds, out) })
}

// distributed converts what a service has counted.
func distributed(d interface {
	Total() (count uint64, sum float64)
	ByBound() map[float64]uint64
}) distribution {
	count, sum := d.Total()
	return distribution{count, sum, d.ByBound()}
}
