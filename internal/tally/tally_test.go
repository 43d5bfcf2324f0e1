package tally_test

import (
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/tally"
)

// A type that nobody knew at the start, such as one that a stranger sends, gets no counter of its
// own.
func TestTableHasNoCounterForAnUnknownType(t *testing.T) {
	t.Parallel()
	table := tally.NewTable([]string{"a"}, "handled", "parked")
	table.Add("a", "handled", 2)
	table.Add("b", "parked", 1)
	table.Add("c", "parked", 1)
	want := map[tally.Key]int64{{Type: "a", Result: "handled"}: 2, {Type: "a", Result: "parked"}: 0,
		{Type: tally.Other, Result: "handled"}: 0, {Type: tally.Other, Result: "parked"}: 2}
	got := table.Counts()
	for key, n := range want {
		if got[key] != n {
			t.Errorf("%v is %d, want %d", key, got[key], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d counters, want %d: %v", len(got), len(want), got)
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h tally.Histogram
	for _, d := range []time.Duration{-time.Second, time.Millisecond, 2 * time.Millisecond,
		time.Minute, time.Hour} {
		h.Observe(d)
	}
	d := h.Distribution()
	by := d.ByBound()
	if d.Count != 5 || by[0.001] != 2 || by[0.0025] != 3 || by[30] != 3 || by[60] != 4 ||
		by[300] != 4 {
		t.Errorf("%+v", d)
	}
	if want := 3660.003; d.Sum < want-1e-6 || d.Sum > want+1e-6 {
		t.Errorf("the sum is %f, want %f", d.Sum, want)
	}
}

func TestCauses(t *testing.T) {
	t.Parallel()
	var c tally.Causes
	if n := len(c.Counts()); n != 0 {
		t.Errorf("%d causes at the beginning", n)
	}
	c.Add("network")
	c.Add("network")
	if n := c.Counts()["network"]; n != 2 {
		t.Errorf("network is %d", n)
	}
}
