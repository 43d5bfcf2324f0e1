package outbox

import (
	"errors"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// simulation is a broker, and the part of the relay that survives a session: the tables and the
// suspects.
type simulation struct {
	rows      []row
	poison    map[int64]bool // the broker ends the session with code 406 at each of these seqs
	lastSeq   int64
	held      map[int64]heldRow
	suspects  int
	confirmed []int64 // seqs in the order of their confirms
}

// drawSimulation draws rows of several aggregates, some of which cannot be published.
func drawSimulation(t *rapid.T) *simulation {
	sim := &simulation{poison: map[int64]bool{}, held: map[int64]heldRow{}}
	n := rapid.IntRange(1, 40).Draw(t, "rows")
	aggregates := rapid.IntRange(1, 8).Draw(t, "aggregates")
	seq := int64(0)
	for range n {
		seq += rapid.Int64Range(1, 3).Draw(t, "gap")
		r := row{seq: seq, number: seq}
		r.record = events.Record{Subject: strconv.Itoa(rapid.IntRange(1, aggregates).Draw(t,
			"aggregate"))}
		switch rapid.IntRange(0, 15).Draw(t, "kind") {
		case 0:
			sim.poison[seq] = true
		case 1:
			r.fault = errors.New("unreadable")
		}
		sim.rows = append(sim.rows, r)
	}
	return sim
}

// chance decides at random whether the broker fails.
type chance struct {
	t      *rapid.T
	faults bool
}

// happens reports true once in outOf times, if there are faults.
func (c chance) happens(name string, outOf int) bool {
	return c.faults && rapid.IntRange(1, outOf).Draw(c.t, name) == 1
}

// decide returns the broker's answer to one row. Without an outcome the session ends with the code.
func (sim *simulation) decide(c chance, seq int64) (o outcome, code int) {
	switch {
	case sim.poison[seq]:
		return outcome{}, 406
	case c.happens("nacked", 6):
		return outcome{kind: rabbit.Refused, reason: "nack"}, 0
	case c.happens("cut", 12):
		return outcome{}, 320
	}
	return outcome{kind: rabbit.Confirmed}, 0
}

// session simulates one term. It reports whether the broker session lasted until all rows were
// settled.
func (sim *simulation) session(c chance) bool {
	s := &state{cursor: cursor{LastSeq: sim.lastSeq}, suspects: sim.suspects}
	sim.loadHeld(s)
	if !sim.retry(c, s) {
		return false
	}
	rest := slices.Clone(sim.rows)
	rest = slices.DeleteFunc(rest, func(r row) bool { return r.seq <= s.cursor.LastSeq })
	var inFlight []part
	for len(rest) > 0 {
		size := min(s.batch(5), len(rest))
		inFlight = append(inFlight, s.divide(rest[:size], nil))
		rest = rest[size:]
		if c.happens("publish fails", 12) {
			sim.save(s, s.settleLost(inFlight, nil, sim.endCode(inFlight, nil), "cut"))
			return false
		}
		if len(inFlight) == s.batch(3) {
			if !sim.settleOldest(c, s, inFlight) {
				return false
			}
			inFlight = inFlight[1:]
		}
	}
	for ; len(inFlight) > 0; inFlight = inFlight[1:] {
		if !sim.settleOldest(c, s, inFlight) {
			return false
		}
	}
	return true
}

// endCode returns the code with which the session ends now: 406 if any row in flight is poisoned.
func (sim *simulation) endCode(inFlight []part, outcomes []outcome) int {
	for _, p := range inFlight {
		for _, r := range p.publish[min(len(outcomes), len(p.publish)):] {
			if sim.poison[r.seq] {
				return 406
			}
		}
		outcomes = nil
	}
	return 320
}

// settleOldest settles the oldest part in flight, and reports whether the session survived.
func (sim *simulation) settleOldest(c chance, s *state, inFlight []part) bool {
	var outcomes []outcome
	for _, r := range inFlight[0].publish {
		o, _ := sim.decide(c, r.seq)
		if o.kind == rabbit.Unknown {
			sim.save(s, s.settleLost(inFlight, outcomes, sim.endCode(inFlight, outcomes), "session ended"))
			return false
		}
		if o.kind == rabbit.Confirmed {
			sim.confirmed = append(sim.confirmed, r.seq)
		}
		outcomes = append(outcomes, o)
	}
	holds, intact := s.settle(inFlight[0], outcomes)
	if !intact {
		c.t.Fatal("settle reports a part as not intact, although all outcomes are known")
	}
	sim.save(s, holds)
	return true
}

// retry publishes held rows that are due until a round releases none.
func (sim *simulation) retry(c chance, s *state) bool {
	for {
		due := sim.due(s)
		var outcomes []outcome
		code := 0
		for _, h := range due {
			o, endCode := sim.decide(c, h.seq)
			if o.kind == rabbit.Unknown {
				code = endCode
				break
			}
			outcomes = append(outcomes, o)
		}
		released, holds, intact := s.settleHeld(due, outcomes)
		if !intact {
			if slices.ContainsFunc(due[len(outcomes):], func(h heldRow) bool { return sim.poison[h.seq] }) {
				code = 406
			}
			holds = append(holds, s.quarantine(due[len(outcomes):], 0, code, "session ended")...)
		}
		for _, h := range released {
			sim.confirmed = append(sim.confirmed, h.seq)
			delete(sim.held, h.seq)
		}
		sim.save(s, holds)
		sim.loadHeld(s)
		if !intact || len(released) == 0 {
			return intact
		}
	}
}

// due returns, of each aggregate, the first held row, or the rows of kind behind with which it
// begins. The rows after them wait, as dueSQL and nextDueSQL have it.
func (sim *simulation) due(s *state) (due []heldRow) {
	const allBehind, waiting = 1, 2 // what is known of an aggregate after its first row
	seen := map[string]int{}
	for _, seq := range sim.heldSeqs() {
		h := sim.held[seq]
		first := seen[h.aggregate] == 0
		if (first && h.kind != heldQuarantined ||
			seen[h.aggregate] == allBehind && h.kind == heldBehind) && len(due) < s.batch(4) {
			due = append(due, h)
		}
		if first && h.kind == heldBehind {
			seen[h.aggregate] = allBehind
		} else if first || h.kind != heldBehind {
			seen[h.aggregate] = waiting
		}
	}
	return due
}

func (sim *simulation) heldSeqs() (seqs []int64) {
	for seq := range sim.held {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	return seqs
}

// loadHeld is what the relay reads from outbox_held.
func (sim *simulation) loadHeld(s *state) {
	s.heldAggregates, s.heldCount, s.refusedCount = map[string]bool{}, 0, 0
	for _, h := range sim.held {
		s.heldAggregates[h.aggregate] = true
		s.heldCount++
		if h.kind == heldRefused {
			s.refusedCount++
		}
	}
}

func (sim *simulation) save(s *state, holds []heldRow) {
	sim.lastSeq, sim.suspects = s.cursor.LastSeq, s.suspects
	for _, h := range holds {
		sim.held[h.seq] = h
	}
}

// check fails the test unless each row that the cursor has passed is confirmed or held, and no row
// beyond the cursor is held.
func (sim *simulation) check(t *rapid.T) {
	for _, r := range sim.rows {
		_, held := sim.held[r.seq]
		confirmed := slices.Contains(sim.confirmed, r.seq)
		if r.seq <= sim.lastSeq && !confirmed && !held {
			t.Fatalf("the cursor is at %d, but row %d is neither confirmed nor held", sim.lastSeq, r.seq)
		}
		if held && r.seq > sim.lastSeq {
			t.Fatalf("row %d is held, but the cursor is only at %d: the row will be read again", r.seq,
				sim.lastSeq)
		}
	}
}

// mustArrive reports whether a row must be published once the broker works: the row and all
// earlier rows of its aggregate can be published.
func (sim *simulation) mustArrive(i int) bool {
	for _, r := range sim.rows[:i+1] {
		if r.record.Subject == sim.rows[i].record.Subject && (sim.poison[r.seq] || r.fault != nil) {
			return false
		}
	}
	return true
}

func TestCursorPassesOnlySettledRows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		sim := drawSimulation(rt)
		for range rapid.IntRange(0, 6).Draw(rt, "bad sessions") {
			sim.session(chance{rt, true})
			sim.check(rt)
		}
		// The broker works now. Each poisoned row may end two sessions: one that makes rows suspects, and
		// one that isolates it.
		for range 2*len(sim.poison) + 1 {
			if sim.session(chance{rt, false}) {
				break
			}
			sim.check(rt)
		}
		if want := sim.rows[len(sim.rows)-1].seq; sim.lastSeq != want {
			rt.Fatalf("the cursor stays at %d, want %d: %d poisoned rows stop the rows behind them",
				sim.lastSeq, want, len(sim.poison))
		}
		for i, r := range sim.rows {
			h, held := sim.held[r.seq]
			if sim.mustArrive(i) && !slices.Contains(sim.confirmed, r.seq) {
				rt.Fatalf("row %d can be published, but was not confirmed: %+v", r.seq, h)
			}
			if (sim.poison[r.seq] || r.fault != nil) && !held {
				rt.Fatalf("row %d cannot be published, but is not held: cursor %d, suspects %d, held %v, "+
					"confirmed %v",
					r.seq, sim.lastSeq, sim.suspects, sim.heldSeqs(), sim.confirmed)
			}
		}
	})
}

func TestWithoutFaultsEachIsPublishedOnceInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		sim := drawSimulation(rt)
		sim.poison = nil
		for i := range sim.rows {
			sim.rows[i].fault = nil
		}
		if !sim.session(chance{rt, false}) {
			rt.Fatal("the session ended")
		}
		var want []int64
		for _, r := range sim.rows {
			want = append(want, r.seq)
		}
		if !slices.Equal(sim.confirmed, want) {
			rt.Fatalf("published %v, want %v", sim.confirmed, want)
		}
	})
}

// A row that has only waited behind another has had no attempt yet when the broker refuses it.
func TestRowThatWaitedIsRefusedByABrokenBroker(t *testing.T) {
	t.Parallel()
	s := state{refusedCount: MaxHeld}
	_, holds, intact := s.settleHeld([]heldRow{{seq: 2, aggregate: "a"}},
		[]outcome{{rabbit.Refused, "full"}})
	if !intact || len(holds) != 1 || holds[0].attempts != 0 || holds[0].retryIn != holdFirst {
		t.Errorf("holds %+v, intact %t", holds, intact)
	}
}
