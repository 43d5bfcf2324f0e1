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
	noRetry      = -time.Second // see hold.due; it is not tried again by itself
	maxDoublings = 16           // attempts after which the pause has long reached holdMax
	maxHeldBatch = 100
	maxRepaired  = 1000 // aggregates that are looked through in one statement
)

// Kinds of held rows, as in outbox_held.
const (
	heldRefused     = "refused"     // nacked, or not confirmed in time
	heldUnroutable  = "unroutable"  // nobody is bound for it
	heldQuarantined = "quarantined" // it can never be published as it is
	heldBehind      = "behind"      // its turn comes when those before it of its aggregate have gone
	heldUnseen      = "unseen"      // no query finds it in the outbox
)

func heldKind(kind rabbit.Outcome) string {
	switch kind {
	case rabbit.Returned:
		return heldUnroutable
	case rabbit.Unsendable:
		return heldQuarantined
	}
	return heldRefused
}

// state is what the relay decides with: plain values, no I/O, no clock.
type state struct {
	cursor cursor
	// of the aggregates at hand those with a held row, which their later rows join
	heldAggregates map[string]bool
	heldCount      int // how many rows are held
	refusedCount   int // how many of them the broker refuses
	// so many rows are to be published one at a time, since one of them may kill the session
	suspects int
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
	hold    []heldRow
	last    int64
}

// divide decides for each row whether it may be published; those that are held already are left
// alone.
func (s *state) divide(rows []row, held map[int64]bool) part {
	p := part{last: rows[len(rows)-1].number}
	for _, r := range rows {
		switch {
		case held[r.seq]:
		case r.fault != nil:
			p.hold = append(p.hold, s.holdRow(r, outcome{rabbit.Unsendable, r.fault.Error()}))
		case s.heldAggregates[r.record.Subject]:
			p.hold = append(p.hold, heldRow{seq: r.seq, number: r.number, aggregate: r.record.Subject, kind: heldBehind,
				retryIn: noRetry,
				reason:  "behind a held event of the same aggregate"})
			s.heldCount++
		default:
			p.publish = append(p.publish, r)
		}
	}
	return p
}

// holdRow puts a row aside after its first attempt. It has its next turn after those of its aggregate
// that are held before it.
func (s *state) holdRow(r row, o outcome) heldRow {
	h := heldRow{seq: r.seq, number: r.number, aggregate: r.record.Subject, kind: heldKind(o.kind),
		reason: o.reason, attempts: 1, retryIn: backoff(1, o.kind)}
	if s.heldAggregates[h.aggregate] && h.kind != heldQuarantined {
		h.kind, h.retryIn = heldBehind, noRetry
	}
	s.heldAggregates[h.aggregate] = true
	s.heldCount++
	if h.kind == heldRefused {
		s.refusedCount++
	}
	return h
}

// settle moves the cursor over what is settled of a part and returns the rows to hold with it. When
// the session ended first, intact is false and the cursor stands before the first row whose fate is
// unknown: from there everything is published again.
func (s *state) settle(p part, outcomes []outcome) (holds []heldRow, intact bool) {
	settled := p.last
	intact = true
	for i, r := range p.publish {
		o := outcome{kind: rabbit.Unknown}
		if i < len(outcomes) {
			o = outcomes[i]
		}
		if o.kind == rabbit.Unknown {
			intact = false
			settled = r.number - 1
			break
		}
		if o.kind != rabbit.Confirmed {
			holds = append(holds, s.holdRow(r, o))
		}
	}
	for _, h := range p.hold {
		if h.number <= settled {
			holds = append(holds, h)
		}
	}
	s.cursor.LastSeq = max(s.cursor.LastSeq, settled)
	if intact {
		s.clearSuspects(len(p.publish))
	}
	return holds, intact
}

// clearSuspects counts rows that have not killed the session.
func (s *state) clearSuspects(rows int) { s.suspects = max(0, s.suspects-rows) }

// closeWindow closes the window: its right edge becomes the left edge of the next.
func (s *state) closeWindow() {
	s.cursor.A, s.cursor.LastSeq = s.cursor.B, 0
}

// brokerBroken tells whether the broker refuses so many rows that it counts as broken.
func (s *state) brokerBroken() bool { return s.refusedCount >= MaxHeld }

// settleLost is settle for all the parts that were in flight when the session ended, of which the
// first had come to the outcomes. When the broker ended it with a complaint about the one row that
// was in flight, that row is held for ever; when there were more, the next session publishes so
// many one at a time to find out.
func (s *state) settleLost(parts []part, outcomes []outcome, code int,
	reason string) (holds []heldRow) {
	inFlight, intact := 0, true
	var first row
	for _, p := range parts {
		if intact {
			var settled []heldRow
			settled, intact = s.settle(p, outcomes)
			holds = append(holds, settled...)
			if !intact {
				first = p.publish[min(len(outcomes), len(p.publish)-1)]
			}
		}
		inFlight += len(p.publish) - min(len(outcomes), len(p.publish))
		outcomes = nil
	}
	if inFlight == 0 || !s.isolate(inFlight, code) {
		return holds
	}
	s.cursor.LastSeq = max(s.cursor.LastSeq, first.number)
	return append(holds, s.holdRow(first, outcome{rabbit.Unsendable, reason}))
}

// isolate tells whether a single row must have ended the session.
func (s *state) isolate(inFlight, code int) bool {
	if !blamesMessage(code) {
		return false
	}
	if inFlight > 1 {
		s.suspects = inFlight
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
func (s *state) settleHeld(due []heldRow, outcomes []outcome) (released, holds []heldRow, intact bool) {
	failed := map[string]bool{}
	for i, h := range due {
		if i >= len(outcomes) || outcomes[i].kind == rabbit.Unknown {
			return released, holds, false
		}
		o := outcomes[i]
		s.clearSuspects(1)
		if o.kind == rabbit.Confirmed {
			released = append(released, h)
			s.heldCount--
			continue
		}
		if !s.brokerBroken() {
			h.attempts++
		}
		h.kind, h.reason, h.retryIn = heldKind(o.kind), o.reason, backoff(h.attempts, o.kind)
		if failed[h.aggregate] && h.kind != heldQuarantined {
			h.kind, h.retryIn = heldBehind, noRetry
		}
		failed[h.aggregate] = true
		holds = append(holds, h)
	}
	return released, holds, true
}

// quarantine is wreck for held rows: others is how many rows were in flight beside them.
func (s *state) quarantine(unsettled []heldRow, others, code int, reason string) (holds []heldRow) {
	if !s.isolate(len(unsettled)+others, code) {
		return nil
	}
	h := unsettled[0]
	h.attempts, h.kind, h.reason, h.retryIn = h.attempts+1, heldQuarantined, reason, noRetry
	return []heldRow{h}
}

// batch is how many rows may be in flight at once, or how many held rows are tried at once.
func (s *state) batch(most int) int {
	if s.suspects > 0 {
		return 1
	}
	return most
}

// backoff doubles with each attempt, of which a row that only waited behind another has had none;
// what cannot be sent at all need not be tried again.
func backoff(attempts int, kind rabbit.Outcome) time.Duration {
	if kind == rabbit.Unsendable {
		return noRetry
	}
	return min(holdFirst<<min(max(0, attempts-1), maxDoublings), holdMax)
}
