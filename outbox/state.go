package outbox

import (
	"time"

	"github.com/quadrille-go/quadrille/rabbit"
)

// The bounds of the relay's patience with single rows.
const (
	// MaxHeld is how many rows the broker may refuse (a nack, or no confirm in time). Above it, it is
	// not the rows that are broken but the broker: the cursor stops, and attempts are no longer
	// counted. What is held for a cause of its own, or behind another row, does not count.
	MaxHeld      = 1000
	holdFirst    = time.Second
	holdMax      = 5 * time.Minute
	never        = -time.Second // see hold.due; it is not tried again by itself
	doubledUpTo  = 16           // attempts after which the pause has long reached holdMax
	maxHeldBatch = 100
	maxRepaired  = 1000 // aggregates that are looked through in one statement
)

// Kinds of held rows, as in outbox_held.
const (
	heldRefused    = "refused"     // nacked, or not confirmed in time
	heldUnroutable = "unroutable"  // nobody is bound for it
	heldUnsendable = "quarantined" // it can never be published as it is
	heldBehind     = "behind"      // its turn comes when those before it of its aggregate have gone
	heldUnseen     = "unseen"      // no query finds it in the outbox
)

func heldAs(kind rabbit.Outcome) string {
	switch kind {
	case rabbit.Returned:
		return heldUnroutable
	case rabbit.Unsendable:
		return heldUnsendable
	}
	return heldRefused
}

// state is what the relay decides with: plain values, no I/O, no clock.
type state struct {
	cursor cursor
	// of the aggregates at hand those with a held row, which their later rows join
	behind  map[string]bool
	held    int // how many rows are held
	refused int // how many of them the broker refuses
	// so many rows are to be published one at a time, since one of them may kill the session
	oneByOne int
}

// outcome is what became of one published row.
type outcome struct {
	kind   rabbit.Outcome
	reason string
}

// part is a run of rows in the order in which they are relayed: those that are published, and those
// that join the held rows of their aggregate.
type part struct {
	publish []row
	join    []hold
	last    int64
}

// divide decides for each row whether it may be published; those that are held already are left
// alone.
func (f *state) divide(rows []row, held map[int64]bool) part {
	p := part{last: rows[len(rows)-1].at}
	for _, r := range rows {
		switch {
		case held[r.seq]:
		case r.fault != nil:
			p.join = append(p.join, f.hold(r, outcome{rabbit.Unsendable, r.fault.Error()}))
		case f.behind[r.record.Subject]:
			p.join = append(p.join, hold{seq: r.seq, at: r.at, aggregate: r.record.Subject, kind: heldBehind,
				due:    never,
				reason: "behind a held event of the same aggregate"})
			f.held++
		default:
			p.publish = append(p.publish, r)
		}
	}
	return p
}

// hold puts a row aside after its first attempt. It has its next turn after those of its aggregate
// that are held before it.
func (f *state) hold(r row, o outcome) hold {
	h := hold{seq: r.seq, at: r.at, aggregate: r.record.Subject, kind: heldAs(o.kind),
		reason: o.reason, attempts: 1, due: pause(1, o.kind)}
	if f.behind[h.aggregate] && h.kind != heldUnsendable {
		h.kind, h.due = heldBehind, never
	}
	f.behind[h.aggregate] = true
	f.held++
	if h.kind == heldRefused {
		f.refused++
	}
	return h
}

// settle moves the cursor over what is settled of a part and returns the rows to hold with it. When
// the session ended first, intact is false and the cursor stands before the first row whose fate is
// unknown: from there everything is published again.
func (f *state) settle(p part, outcomes []outcome) (holds []hold, intact bool) {
	settled := p.last
	intact = true
	for i, r := range p.publish {
		o := outcome{kind: rabbit.Unknown}
		if i < len(outcomes) {
			o = outcomes[i]
		}
		if o.kind == rabbit.Unknown {
			intact = false
			settled = r.at - 1
			break
		}
		if o.kind != rabbit.Confirmed {
			holds = append(holds, f.hold(r, o))
		}
	}
	for _, h := range p.join {
		if h.at <= settled {
			holds = append(holds, h)
		}
	}
	f.cursor.LastSeq = max(f.cursor.LastSeq, settled)
	if intact {
		f.published(len(p.publish))
	}
	return holds, intact
}

// published counts rows that have not killed the session.
func (f *state) published(rows int) { f.oneByOne = max(0, f.oneByOne-rows) }

// finish closes the window: its right edge becomes the left edge of the next.
func (f *state) finish() {
	f.cursor.A, f.cursor.LastSeq = f.cursor.B, 0
}

// brokerBroken tells whether the broker refuses so many rows that it counts as broken.
func (f *state) brokerBroken() bool { return f.refused >= MaxHeld }

// settleLost is settle for all the parts that were in flight when the session ended, of which the
// first had come to the outcomes. When the broker ended it with a complaint about the one row that
// was in flight, that row is held for ever; when there were more, the next session publishes so
// many one at a time to find out.
func (f *state) settleLost(parts []part, outcomes []outcome, code int,
	reason string) (holds []hold) {
	inFlight, intact := 0, true
	var first row
	for _, p := range parts {
		if intact {
			var settled []hold
			settled, intact = f.settle(p, outcomes)
			holds = append(holds, settled...)
			if !intact {
				first = p.publish[min(len(outcomes), len(p.publish)-1)]
			}
		}
		inFlight += len(p.publish) - min(len(outcomes), len(p.publish))
		outcomes = nil
	}
	if inFlight == 0 || !f.suspect(inFlight, code) {
		return holds
	}
	f.cursor.LastSeq = max(f.cursor.LastSeq, first.at)
	return append(holds, f.hold(first, outcome{rabbit.Unsendable, reason}))
}

// suspect tells whether a single row must have ended the session.
func (f *state) suspect(inFlight, code int) bool {
	if !blamesMessage(code) {
		return false
	}
	if inFlight > 1 {
		f.oneByOne = inFlight
	}
	return inFlight == 1
}

// blamesMessage tells the reply codes of AMQP 0-9-1 that are about what was sent from those about
// the broker or the operator.
func blamesMessage(code int) bool {
	switch code {
	// content too large, precondition failed, frame, syntax, unexpected frame, not implemented
	case 311, 406, 501, 502, 505, 540:
		return true
	}
	return false
}

// settleHeld decides about held rows that were published again, and holds those again that failed.
// After a session that ended first, intact is false, and the rest is tried again as it is; unless
// the broker complained and there was nothing else in flight.
func (f *state) settleHeld(heads []hold, outcomes []outcome) (released, holds []hold, intact bool) {
	failed := map[string]bool{}
	for i, h := range heads {
		if i >= len(outcomes) || outcomes[i].kind == rabbit.Unknown {
			return released, holds, false
		}
		o := outcomes[i]
		f.published(1)
		if o.kind == rabbit.Confirmed {
			released = append(released, h)
			f.held--
			continue
		}
		if !f.brokerBroken() {
			h.attempts++
		}
		h.kind, h.reason, h.due = heldAs(o.kind), o.reason, pause(h.attempts, o.kind)
		if failed[h.aggregate] && h.kind != heldUnsendable {
			h.kind, h.due = heldBehind, never
		}
		failed[h.aggregate] = true
		holds = append(holds, h)
	}
	return released, holds, true
}

// quarantine is wreck for held rows: others is how many rows were in flight beside them.
func (f *state) quarantine(unsettled []hold, others, code int, reason string) (holds []hold) {
	if !f.suspect(len(unsettled)+others, code) {
		return nil
	}
	h := unsettled[0]
	h.attempts, h.kind, h.reason, h.due = h.attempts+1, heldUnsendable, reason, never
	return []hold{h}
}

// batch is how many rows may be in flight at once, or how many held rows are tried at once.
func (f *state) batch(most int) int {
	if f.oneByOne > 0 {
		return 1
	}
	return most
}

// pause doubles with each attempt, of which a row that only waited behind another has had none;
// what cannot be sent at all need not be tried again.
func pause(attempts int, kind rabbit.Outcome) time.Duration {
	if kind == rabbit.Unsendable {
		return never
	}
	return min(holdFirst<<min(max(0, attempts-1), doubledUpTo), holdMax)
}
