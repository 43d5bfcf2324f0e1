package outbox

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/quadrille-go/quadrille/events"
)

// simulation is a broker, the tables, and the part of the relay that survives a session: the
// suspects.
type simulation struct {
	rows      []row
	poison    map[int64]bool // the broker ends the session with code 406 at each of these seqs
	lastSeq   int64          // of the cursor
	held      map[int64]heldRow
	due       map[int64]bool // of the held rows, those whose next attempt is due
	replays   []int64        // the requested seqs
	reached   int64          // of the request
	counted   int            // rows of the request that were published or refused, or are held
	suspects  map[int64]bool
	confirmed []int64 // seqs in the order of their confirms, without replays
}

// drawSimulation draws rows of several aggregates, some of which cannot be published.
func drawSimulation(t *rapid.T) *simulation {
	sim := &simulation{poison: map[int64]bool{}, held: map[int64]heldRow{}, due: map[int64]bool{},
		suspects: map[int64]bool{}}
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
		if rapid.IntRange(0, 3).Draw(t, "replayed") == 0 {
			sim.replays = append(sim.replays, seq)
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

// session is one term of the simulation.
type session struct {
	*simulation
	state
	chance
	ended bool
}

// session simulates one term. It reports whether the broker session lasted until all rows were
// settled.
func (sim *simulation) session(c chance) bool {
	s := &session{simulation: sim, chance: c, state: newState(sim.suspects)}
	s.settled, s.heldCount = sim.lastSeq, len(sim.held)
	rest := slices.DeleteFunc(slices.Clone(sim.rows), func(r row) bool { return r.seq <= sim.lastSeq })
	for !s.ended {
		s.retryHeld()
		s.replay()
		n := min(rapid.IntRange(1, 6).Draw(c.t, "chunk"), len(rest))
		s.publishRows(rest[:n])
		rest = rest[n:]
		s.settleOldest(rapid.IntRange(0, 8).Draw(c.t, "settle"))
		if len(rest) > 0 || s.ended {
			continue
		}
		s.settleOldest(len(s.queue))
		if len(s.queue) == 0 && len(s.dueHeld()) == 0 && len(s.nextReplay()) == 0 {
			return true
		}
	}
	return false
}

func (s *session) publishRows(rows []row) {
	if s.ended || len(rows) == 0 {
		return
	}
	held := map[int64]bool{}
	s.heldAggregates = map[string]bool{}
	for _, h := range s.held {
		held[h.seq], s.heldAggregates[h.aggregate] = true, true
	}
	s.send(s.admit(rows, held))
}

// send is that of the term.
func (s *session) send(attempts []attempt) {
	for s.unsent = attempts; len(s.unsent) > 0 && !s.ended; {
		n, alone := s.run()
		if alone {
			s.settleOldest(len(s.queue))
		}
		if s.ended {
			return
		}
		for _, a := range s.next(n) {
			if a.result == unknown && alone && slices.ContainsFunc(s.queue, inFlight) {
				s.t.Fatalf("suspect %d is sent while others are in flight", a.seq)
			}
			s.queue = append(s.queue, a)
		}
		if s.happens("publish fails", 12) {
			s.end()
		}
		if alone {
			s.settleOldest(len(s.queue))
		}
	}
}

func inFlight(a attempt) bool { return a.result == unknown }

// settleOldest lets the broker answer the n oldest attempts, and settles them.
func (s *session) settleOldest(n int) {
	for i := range min(n, len(s.queue)) {
		if s.ended {
			return
		}
		if a := &s.queue[i]; a.result == unknown && !s.answer(a) {
			s.end()
			return
		}
	}
	if !s.ended {
		s.apply(s.settle())
	}
}

// answer gives an attempt the broker's answer, or reports that the session ends instead.
func (s *session) answer(a *attempt) bool {
	switch {
	case s.poison[a.seq]:
		return false
	case s.happens("nacked", 6):
		a.result, a.reason = refused, "nack"
	case s.happens("cut", 12):
		return false
	default:
		a.result = confirmed
		if a.origin != ofReplay {
			s.confirmed = append(s.confirmed, a.seq)
		}
	}
	return true
}

// end ends the session. The broker has answered some of the attempts in flight before, in any
// order, and complains about a message if one of the others is poisoned.
func (s *session) end() {
	code := 320
	for i := range s.queue {
		a := &s.queue[i]
		if a.result == unknown && !s.poison[a.seq] && s.happens("answered before", 3) {
			s.answer(a)
		}
		if a.result == unknown && s.poison[a.seq] {
			code = 406
		}
	}
	s.ended = true
	s.lost(code, "session ended")
	s.apply(s.settle())
}

// apply is what the relay writes. Its next look at outbox_held finds what it has written.
func (s *session) apply(c changes) {
	s.lastSeq = s.settled
	for _, h := range c.holds {
		s.held[h.seq], s.due[h.seq] = h, h.retryIn == 0
	}
	for _, h := range c.released {
		delete(s.held, h.seq)
		delete(s.due, h.seq)
	}
	for _, h := range c.released { // as nextDueSQL
		for _, seq := range s.heldSeqs() {
			if s.held[seq].aggregate != h.aggregate {
				continue
			}
			if s.held[seq].kind != behind {
				break
			}
			s.due[seq] = true
		}
	}
	if p := c.replayed; p.reached > 0 {
		s.reached = max(s.reached, p.reached)
		s.counted += p.published + p.refused + p.held
	}
}

// dueHeld is dueHeld of the relay: rows of the same aggregate that are due together are published
// together, and rows that would overtake an earlier one wait for it.
func (s *session) dueHeld() (due []attempt) {
	earlier := map[string]bool{} // aggregates with an earlier row that is not due
	for _, seq := range s.heldSeqs() {
		h := s.held[seq]
		switch {
		case h.kind == quarantined:
			earlier[h.aggregate] = true
			continue
		case h.retryIn != noRetry && h.kind != behind:
			s.due[seq] = true // its backoff has passed
		}
		if !s.due[seq] {
			earlier[h.aggregate] = true
			continue
		}
		if earlier[h.aggregate] {
			h.kind, h.retryIn = behind, noRetry
			s.held[seq], s.due[seq] = h, false // postponed
			continue
		}
		a := attempt{origin: ofHeld, tries: h.attempts, row: row{seq: seq}}
		a.record.Subject = h.aggregate
		if due = append(due, a); len(due) == 4 {
			break
		}
	}
	return due
}

func (s *session) retryHeld() {
	if s.ended || s.waiting(ofHeld) {
		return
	}
	s.failed = map[string]bool{}
	s.send(s.dueHeld())
}

// nextReplay is the next batch of the request. It ends before a row that is not settled yet.
func (s *session) nextReplay() (next []replayRow) {
	for _, seq := range s.replays {
		if seq <= s.reached || len(next) == 3 {
			continue
		}
		n := replayRow{Seq: seq, Settled: seq <= s.lastSeq}
		if h, ok := s.held[seq]; ok {
			n.Held, n.Due = &h.reason, s.due[seq]
		}
		next = append(next, n)
	}
	return next
}

func (s *session) replay() {
	if s.ended || s.waiting(ofReplay) {
		return
	}
	s.send(splitReplay(s.nextReplay()))
}

func (sim *simulation) heldSeqs() []int64 { return slices.Sorted(maps.Keys(sim.held)) }

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
	requested := len(slices.DeleteFunc(slices.Clone(sim.replays),
		func(seq int64) bool { return seq > sim.reached }))
	if sim.counted != requested {
		t.Fatalf("the request has reached %d with %d rows, but counts %d", sim.reached, requested,
			sim.counted)
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

func (sim *simulation) String() string {
	return fmt.Sprintf("cursor %d, suspects %v, held %v, confirmed %v, replay at %d", sim.lastSeq,
		sim.suspects, sim.held, sim.confirmed, sim.reached)
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
		// one that isolates it. A replay of it may end two more.
		for range 4*len(sim.poison) + 1 {
			if sim.session(chance{rt, false}) {
				break
			}
			sim.check(rt)
		}
		sim.check(rt)
		if want := sim.rows[len(sim.rows)-1].seq; sim.lastSeq != want {
			rt.Fatalf("the cursor does not reach %d: poisoned rows stop the rows behind them: %s", want,
				sim)
		}
		if n := len(sim.replays); n > 0 && sim.reached != sim.replays[n-1] {
			rt.Fatalf("the replay does not reach %d: %s", sim.replays[n-1], sim)
		}
		for i, r := range sim.rows {
			_, held := sim.held[r.seq]
			if sim.mustArrive(i) && (!slices.Contains(sim.confirmed, r.seq) || held) {
				rt.Fatalf("row %d can be published, but is not: %s", r.seq, sim)
			}
			if (sim.poison[r.seq] || r.fault != nil) && !held {
				rt.Fatalf("row %d cannot be published, but is not held: %s", r.seq, sim)
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
		if len(sim.held) > 0 || sim.counted != len(sim.replays) {
			rt.Fatalf("held %v, replayed %d of %d", sim.held, sim.counted, len(sim.replays))
		}
	})
}

// A row that has only waited behind another has had no attempt yet when the broker refuses it.
func TestRowThatWaitedIsRefusedByABrokenBroker(t *testing.T) {
	t.Parallel()
	s := newState(map[int64]bool{})
	s.refusedCount = MaxHeld
	holds := retry(&s, heldRow{seq: 2, aggregate: "a"}, refused).holds
	if len(holds) != 1 || holds[0].attempts != 0 || holds[0].retryIn != holdFirst {
		t.Errorf("holds %+v", holds)
	}
}

// Rows that wait for a held row may be in the queue, or about to follow a suspect into it, when
// that row is released. No table has them yet, and so each must be written as due.
func TestReleaseFreesTheRowsThatAreNotStoredYet(t *testing.T) {
	t.Parallel()
	s := newState(map[int64]bool{})
	s.heldAggregates["a"] = true
	waiting := s.admit([]row{{seq: 2, number: 1, record: events.Record{Subject: "a"}},
		{seq: 3, number: 2, record: events.Record{Subject: "a"}}}, nil)
	released := attempt{origin: ofHeld, result: confirmed, row: row{seq: 1,
		record: events.Record{Subject: "a"}}}
	s.queue = []attempt{released, {row: row{seq: 9}}, waiting[0]}
	s.unsent = waiting[1:]
	s.settle()
	s.queue[0].result = confirmed
	s.queue = append(s.queue, s.next(1)...)
	holds := s.settle().holds
	if len(holds) != 2 || holds[0].retryIn != 0 || holds[1].retryIn != 0 {
		t.Errorf("holds %+v, want both due at once", holds)
	}
}
