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
	rows    []row
	poison  map[int64]bool // the broker closes the session with 406 when it gets one of these
	last    int64
	held    map[int64]hold
	careful int
	got     []int64 // confirmed, in the order of the confirms
}

func drawSimulation(t *rapid.T) *simulation {
	w := &simulation{poison: map[int64]bool{}, held: map[int64]hold{}}
	n := rapid.IntRange(1, 40).Draw(t, "rows")
	aggregates := rapid.IntRange(1, 8).Draw(t, "aggregates")
	seq := int64(0)
	for range n {
		seq += rapid.Int64Range(1, 3).Draw(t, "gap")
		r := row{seq: seq, at: seq}
		r.record = events.Record{Subject: strconv.Itoa(rapid.IntRange(1, aggregates).Draw(t,
			"aggregate"))}
		switch rapid.IntRange(0, 15).Draw(t, "kind") {
		case 0:
			w.poison[seq] = true
		case 1:
			r.fault = errors.New("unreadable")
		}
		w.rows = append(w.rows, r)
	}
	return w
}

// chance makes the broker's decisions.
type chance struct {
	t      *rapid.T
	faults bool
}

func (c chance) one(name string, outOf int) bool {
	return c.faults && rapid.IntRange(1, outOf).Draw(c.t, name) == 1
}

// fate is what the broker says about one row; code is that of a session that ends.
func (w *simulation) fate(c chance, seq int64) (o outcome, code int) {
	switch {
	case w.poison[seq]:
		return outcome{}, 406
	case c.one("nacked", 6):
		return outcome{kind: rabbit.Refused, reason: "nack"}, 0
	case c.one("cut", 12):
		return outcome{}, 320
	}
	return outcome{kind: rabbit.Confirmed}, 0
}

// session is one lead in one session, as pump leads it. It tells whether the session survived.
func (w *simulation) session(c chance) bool {
	f := &state{cursor: cursor{LastSeq: w.last}, oneByOne: w.careful}
	w.load(f)
	if !w.retry(c, f) {
		return false
	}
	rest := slices.Clone(w.rows)
	rest = slices.DeleteFunc(rest, func(r row) bool { return r.seq <= f.cursor.LastSeq })
	var flying []part
	for len(rest) > 0 {
		size := min(f.batch(5), len(rest))
		flying = append(flying, f.divide(rest[:size], nil))
		rest = rest[size:]
		if c.one("publish fails", 12) {
			w.save(f, f.settleLost(flying, nil, w.code(flying, nil), "cut"))
			return false
		}
		if len(flying) == f.batch(3) {
			if !w.land(c, f, flying) {
				return false
			}
			flying = flying[1:]
		}
	}
	for ; len(flying) > 0; flying = flying[1:] {
		if !w.land(c, f, flying) {
			return false
		}
	}
	return true
}

// code is that with which the session ends when it ends now: a complaint when any row in flight
// deserves one.
func (w *simulation) code(flying []part, outcomes []outcome) int {
	for _, p := range flying {
		for _, r := range p.publish[min(len(outcomes), len(p.publish)):] {
			if w.poison[r.seq] {
				return 406
			}
		}
		outcomes = nil
	}
	return 320
}

func (w *simulation) land(c chance, f *state, flying []part) bool {
	var outcomes []outcome
	for _, r := range flying[0].publish {
		o, _ := w.fate(c, r.seq)
		if o.kind == rabbit.Unknown {
			w.save(f, f.settleLost(flying, outcomes, w.code(flying, outcomes), "session ended"))
			return false
		}
		if o.kind == rabbit.Confirmed {
			w.got = append(w.got, r.seq)
		}
		outcomes = append(outcomes, o)
	}
	holds, intact := f.settle(flying[0], outcomes)
	if !intact {
		c.t.Fatal("all outcomes are known, yet the part is not intact")
	}
	w.save(f, holds)
	return true
}

// retry tries the held rows that are first of their aggregate until none of them is released.
func (w *simulation) retry(c chance, f *state) bool {
	for {
		heads := w.heads(f)
		var outcomes []outcome
		code := 0
		for _, h := range heads {
			o, ends := w.fate(c, h.seq)
			if o.kind == rabbit.Unknown {
				code = ends
				break
			}
			outcomes = append(outcomes, o)
		}
		released, again, intact := f.settleHeld(heads, outcomes)
		if !intact {
			if slices.ContainsFunc(heads[len(outcomes):], func(h hold) bool { return w.poison[h.seq] }) {
				code = 406
			}
			again = append(again, f.quarantine(heads[len(outcomes):], 0, code, "session ended")...)
		}
		for _, h := range released {
			w.got = append(w.got, h.seq)
			delete(w.held, h.seq)
		}
		w.save(f, again)
		w.load(f)
		if !intact || len(released) == 0 {
			return intact
		}
	}
}

func (w *simulation) heads(f *state) (heads []hold) {
	// the turn of an aggregate's rows ends with the first that has a cause of its own
	const closed, open = 1, 2
	turn := map[string]int{}
	for _, seq := range w.heldSeqs() {
		h := w.held[seq]
		first := turn[h.aggregate] == 0
		if (first && h.kind != heldUnsendable || turn[h.aggregate] == open && h.kind == heldBehind) &&
			len(heads) < f.batch(4) {
			heads = append(heads, h)
		}
		if first && h.kind == heldBehind {
			turn[h.aggregate] = open
		} else if first || h.kind != heldBehind {
			turn[h.aggregate] = closed
		}
	}
	return heads
}

func (w *simulation) heldSeqs() (seqs []int64) {
	for seq := range w.held {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	return seqs
}

func (w *simulation) load(f *state) {
	f.behind, f.held, f.refused = map[string]bool{}, 0, 0
	for _, h := range w.held {
		f.behind[h.aggregate] = true
		f.held++
		if h.kind == heldRefused {
			f.refused++
		}
	}
}

func (w *simulation) save(f *state, holds []hold) {
	w.last, w.careful = f.cursor.LastSeq, f.oneByOne
	for _, h := range holds {
		w.held[h.seq] = h
	}
}

// check is the promise: what the cursor has passed is confirmed or held, and nothing else is held.
func (w *simulation) check(t *rapid.T) {
	for _, r := range w.rows {
		_, held := w.held[r.seq]
		confirmed := slices.Contains(w.got, r.seq)
		if r.seq <= w.last && !confirmed && !held {
			t.Fatalf("the cursor is at %d, but row %d is neither confirmed nor held", w.last, r.seq)
		}
		if held && r.seq > w.last {
			t.Fatalf("row %d is held, but the cursor is at %d: it will be read again", r.seq, w.last)
		}
	}
}

// repaired tells whether a row must arrive once the broker is well: it can be published, and so can
// all before it of its aggregate that are still held.
func (w *simulation) repaired(i int) bool {
	for _, r := range w.rows[:i+1] {
		if r.record.Subject == w.rows[i].record.Subject && (w.poison[r.seq] || r.fault != nil) {
			return false
		}
	}
	return true
}

func TestNothingIsPassedUnsettled(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := drawSimulation(rt)
		for range rapid.IntRange(0, 6).Draw(rt, "bad sessions") {
			w.session(chance{rt, true})
			w.check(rt)
		}
		// The broker is well now: each poisoned row may end two sessions, before it is found and then.
		for range 2*len(w.poison) + 1 {
			if w.session(chance{rt, false}) {
				break
			}
			w.check(rt)
		}
		if want := w.rows[len(w.rows)-1].seq; w.last != want {
			rt.Fatalf("the cursor stays at %d of %d: rows behind a poisoned one starve (%d poisoned)",
				w.last, want, len(w.poison))
		}
		for i, r := range w.rows {
			h, held := w.held[r.seq]
			if w.repaired(i) && !slices.Contains(w.got, r.seq) {
				rt.Fatalf("row %d could be published and was not: %+v", r.seq, h)
			}
			if (w.poison[r.seq] || r.fault != nil) && !held {
				rt.Fatalf("row %d cannot be published, but is not held: last %d careful %d held %v got %v",
					r.seq, w.last, w.careful, w.heldSeqs(), w.got)
			}
		}
	})
}

func TestWithoutFaultsEachIsPublishedOnceInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := drawSimulation(rt)
		w.poison = nil
		for i := range w.rows {
			w.rows[i].fault = nil
		}
		if !w.session(chance{rt, false}) {
			rt.Fatal("the session ended")
		}
		var want []int64
		for _, r := range w.rows {
			want = append(want, r.seq)
		}
		if !slices.Equal(w.got, want) {
			rt.Fatalf("published %v of %v", w.got, want)
		}
	})
}

// Rows that only waited behind another have had no attempt yet when it is their turn.
func TestRowThatWaitedIsRefusedByABrokenBroker(t *testing.T) {
	t.Parallel()
	f := state{refused: MaxHeld}
	_, holds, intact := f.settleHeld([]hold{{seq: 2, aggregate: "a"}},
		[]outcome{{rabbit.Refused, "full"}})
	if !intact || len(holds) != 1 || holds[0].attempts != 0 || holds[0].due != holdFirst {
		t.Errorf("holds %+v, intact %t", holds, intact)
	}
}
