package outbox

import (
	"errors"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/rabbit"
)

// simulation is what survives a session (the tables and the relay's own suspicion), and the broker.
type simulation struct {
	rows      []row
	poison    map[int64]bool // the broker closes the session with 406 when it gets one of these
	lastSeq   int64
	held      map[int64]heldRow
	suspects  int
	confirmed []int64 // confirmed, in the order of the confirms
}

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

// chance makes the broker's decisions.
type chance struct {
	t      *rapid.T
	faults bool
}

func (c chance) happens(name string, outOf int) bool {
	return c.faults && rapid.IntRange(1, outOf).Draw(c.t, name) == 1
}

// decide is what the broker says about one row; code is that of a session that ends.
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

// session is one lead in one session, as pump leads it. It tells whether the session survived.
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

// endCode is that with which the session ends when it ends now: a complaint when any row in flight
// deserves one.
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
		c.t.Fatal("all outcomes are known, yet the part is not intact")
	}
	sim.save(s, holds)
	return true
}

// retry tries the held rows that are first of their aggregate until none of them is released.
func (sim *simulation) retry(c chance, s *state) bool {
	for {
		due := sim.due(s)
		var outcomes []outcome
		code := 0
		for _, h := range due {
			o, ends := sim.decide(c, h.seq)
			if o.kind == rabbit.Unknown {
				code = ends
				break
			}
			outcomes = append(outcomes, o)
		}
		released, again, intact := s.settleHeld(due, outcomes)
		if !intact {
			if slices.ContainsFunc(due[len(outcomes):], func(h heldRow) bool { return sim.poison[h.seq] }) {
				code = 406
			}
			again = append(again, s.quarantine(due[len(outcomes):], 0, code, "session ended")...)
		}
		for _, h := range released {
			sim.confirmed = append(sim.confirmed, h.seq)
			delete(sim.held, h.seq)
		}
		sim.save(s, again)
		sim.loadHeld(s)
		if !intact || len(released) == 0 {
			return intact
		}
	}
}

func (sim *simulation) due(s *state) (due []heldRow) {
	// the turn of an aggregate's rows ends with the first that has a cause of its own
	const closed, open = 1, 2
	turn := map[string]int{}
	for _, seq := range sim.heldSeqs() {
		h := sim.held[seq]
		first := turn[h.aggregate] == 0
		if (first && h.kind != heldQuarantined || turn[h.aggregate] == open && h.kind == heldBehind) &&
			len(due) < s.batch(4) {
			due = append(due, h)
		}
		if first && h.kind == heldBehind {
			turn[h.aggregate] = open
		} else if first || h.kind != heldBehind {
			turn[h.aggregate] = closed
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

// check is the promise: what the cursor has passed is confirmed or held, and nothing else is held.
func (sim *simulation) check(t *rapid.T) {
	for _, r := range sim.rows {
		_, held := sim.held[r.seq]
		confirmed := slices.Contains(sim.confirmed, r.seq)
		if r.seq <= sim.lastSeq && !confirmed && !held {
			t.Fatalf("the cursor is at %d, but row %d is neither confirmed nor held", sim.lastSeq, r.seq)
		}
		if held && r.seq > sim.lastSeq {
			t.Fatalf("row %d is held, but the cursor is at %d: it will be read again", r.seq, sim.lastSeq)
		}
	}
}

// mustArrive tells whether a row must arrive once the broker is well: it can be published, and so
// can all before it of its aggregate that are still held.
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
		// The broker is well now: each poisoned row may end two sessions, before it is found and then.
		for range 2*len(sim.poison) + 1 {
			if sim.session(chance{rt, false}) {
				break
			}
			sim.check(rt)
		}
		if want := sim.rows[len(sim.rows)-1].seq; sim.lastSeq != want {
			rt.Fatalf("the cursor stays at %d of %d: rows behind a poisoned one starve (%d poisoned)",
				sim.lastSeq, want, len(sim.poison))
		}
		for i, r := range sim.rows {
			h, held := sim.held[r.seq]
			if sim.mustArrive(i) && !slices.Contains(sim.confirmed, r.seq) {
				rt.Fatalf("row %d could be published and was not: %+v", r.seq, h)
			}
			if (sim.poison[r.seq] || r.fault != nil) && !held {
				rt.Fatalf("row %d cannot be published, but is not held: last %d careful %d held %v got %v",
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
			rt.Fatalf("published %v of %v", sim.confirmed, want)
		}
	})
}

// Rows that only waited behind another have had no attempt yet when it is their turn.
func TestRowThatWaitedIsRefusedByABrokenBroker(t *testing.T) {
	t.Parallel()
	s := state{refusedCount: MaxHeld}
	_, holds, intact := s.settleHeld([]heldRow{{seq: 2, aggregate: "a"}},
		[]outcome{{rabbit.Refused, "full"}})
	if !intact || len(holds) != 1 || holds[0].attempts != 0 || holds[0].retryIn != holdFirst {
		t.Errorf("holds %+v, intact %t", holds, intact)
	}
}
