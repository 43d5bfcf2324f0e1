// Package tally counts what a service does, for its metrics. It knows nothing of how they are
// exported.
//
// The number of its counters is fixed when they are made: what is counted by a name that came from
// outside, such as the type of a message, cannot use up memory or make a monitoring system slow.
package tally

import (
	"maps"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Other is the type under which everything is counted whose type is not known.
const Other = "other"

// Key is what one counter of a Table counts.
type Key struct{ Type, Result string }

// Table has a counter for each type and result. It is safe for concurrent use.
type Table struct{ counters map[Key]*atomic.Int64 }

// NewTable returns a table for these types and results, all with 0, and for Other.
func NewTable(types []string, results ...string) Table {
	t := Table{map[Key]*atomic.Int64{}}
	for _, eventType := range append([]string{Other}, types...) {
		for _, result := range results {
			t.counters[Key{eventType, result}] = new(atomic.Int64)
		}
	}
	return t
}

// Add adds n to a counter. The result must be one of the table's.
func (t Table) Add(eventType, result string, n int64) {
	counter := t.counters[Key{eventType, result}]
	if counter == nil {
		counter = t.counters[Key{Other, result}]
	}
	counter.Add(n)
}

// Counts returns all counters.
func (t Table) Counts() map[Key]int64 {
	counts := make(map[Key]int64, len(t.counters))
	for key, counter := range t.counters {
		counts[key] = counter.Load()
	}
	return counts
}

// Total returns how many were counted with a result, of all types.
func (t Table) Total(result string) (n int64) {
	for key, counter := range t.counters {
		if key.Result == result {
			n += counter.Load()
		}
	}
	return n
}

// Causes counts by a name. It is for names of a small set, such as rabbit.CauseOf returns. The zero
// value has no names, and it is safe for concurrent use.
type Causes struct {
	mu     sync.Mutex
	counts map[string]int64
}

// Add counts one more of a name.
func (c *Causes) Add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int64{}
	}
	c.counts[name]++
}

// Counts returns all names that were counted.
func (c *Causes) Counts() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// buckets is the number of upper bounds of a Histogram.
const buckets = 16

// Bounds returns the upper bounds of the buckets of every Histogram, in seconds: those that
// OpenTelemetry recommends for messaging, with finer ones below, because an idle service handles an
// event in three milliseconds, and coarser ones above, for what waits in a queue.
func Bounds() [buckets]float64 {
	return [buckets]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
		60, 300}
}

// Histogram counts durations. The zero value is empty, and it is safe for concurrent use.
type Histogram struct {
	counts [buckets + 1]atomic.Uint64 // the last one is above all bounds
	sum    atomic.Int64               // in nanoseconds
}

// Observe counts a duration. A negative one, which only two clocks can give, counts as 0.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	bounds := Bounds()
	h.counts[sort.SearchFloat64s(bounds[:], d.Seconds())].Add(1)
	h.sum.Add(int64(d))
}

// Distribution is what a Histogram has counted. It is comparable.
type Distribution struct {
	Count   uint64
	Sum     float64         // of all durations, in seconds
	Buckets [buckets]uint64 // how many are at most the bound with the same index
}

// Distribution returns what was counted so far.
func (h *Histogram) Distribution() (d Distribution) {
	for i := range h.counts {
		d.Count += h.counts[i].Load()
		if i < buckets {
			d.Buckets[i] = d.Count
		}
	}
	d.Sum = time.Duration(h.sum.Load()).Seconds()
	return d
}

// Total returns the number of durations and their sum in seconds.
func (d Distribution) Total() (count uint64, sum float64) { return d.Count, d.Sum }

// ByBound returns the buckets by their upper bounds.
func (d Distribution) ByBound() map[float64]uint64 {
	by := make(map[float64]uint64, buckets)
	for i, bound := range Bounds() {
		by[bound] = d.Buckets[i]
	}
	return by
}
