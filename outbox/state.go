package outbox

import (
	"time"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// The bounds of held rows.
const (
	// MaxHeld is the number of refused rows (nacked, or not confirmed in time) at which the relay
	// takes the broker for broken rather than the rows. The cursor then stops, and attempts are no
	// longer counted. Rows that are held for another reason do not count towards it: an event type
	// without a queue, or one bad row, must not stop the other events.
	MaxHeld      = 1000
	holdFirst    = time.Second     // the first backoff
	holdMax      = 5 * time.Minute // the longest backoff
	noRetry      = -time.Second    // a heldRow.retryIn: the relay does not retry the row by itself
	maxDoublings = 16              // of holdFirst; more would overflow, and holdMax is reached earlier
	maxHeldBatch = 100             // held rows that are published at once
	maxRepaired  = 1000            // aggregates that repairHeld reads with one statement
)

// The kinds of held rows, as in outbox_held.
const (
	heldRefused     = "refused"     // the broker nacked it, or did not confirm it in time
	heldUnroutable  = "unroutable"  // no queue is bound for its type
	heldQuarantined = "quarantined" // it can never be published as it is
	heldBehind      = "behind"      // an earlier row of its aggregate is held
	heldUnseen      = "unseen"      // no query finds it in the outbox
)

// heldKind is the kind of a row that was published with this outcome.
func heldKind(kind rabbit.Outcome) string {
	switch kind {
	case rabbit.Returned:
		return heldUnroutable
	case rabbit.Unsendable:
		return heldQuarantined
	}
	return heldRefused
}

// state holds the decisions of the relay: which rows it publishes, which it holds, and how far the
// cursor moves. It does no I/O and reads no clock, so that a test can run it through every order of
// failures.
//
// A row is settled when the broker has confirmed it, or when it is written to outbox_held. The
// cursor passes settled rows only; that is what keeps an event from being lost.
type state struct {
	cursor cursor
	// heldAggregates are, of the aggregates of the current batch, those with a held row. Their later
	// rows are held too, or they would overtake it.
	heldAggregates map[string]bool
	heldCount      int // rows in outbox_held
	refusedCount   int // those of kind refused, counted up to MaxHeld
	// suspects is the number of rows to publish one at a time. The broker ended a session because of
	// one of them, and only a session with a single row in flight shows which.
	suspects int
}

// outcome is the broker's answer to one published row.
type outcome struct {
	kind   rabbit.Outcome
	reason string
}

// part is a run of consecutive rows, divided into those to publish and those to hold.
type part struct {
	publish []row
	hold    []heldRow
	last    int64 // the number of the last row, published or held
}

// divide divides rows into those to publish and those to hold. It leaves out rows that are in
// outbox_held already: they keep their attempts and their schedule.
func (s *state) divide(rows []row, held map[int64]bool) part {
	p := part{last: rows[len(rows)-1].number}
	for _, r := range rows {
		switch {
		case held[r.seq]:
		case r.fault != nil:
			p.hold = append(p.hold, s.holdRow(r, outcome{rabbit.Unsendable, r.fault.Error()}))
		case s.heldAggregates[r.record.Subject]:
			p.hold = append(p.hold, heldRow{seq: r.seq, number: r.number, aggregate: r.record.Subject,
				kind: heldBehind, retryIn: noRetry,
				reason: "an earlier event of the same aggregate is held"})
			s.heldCount++
		default:
			p.publish = append(p.publish, r)
		}
	}
	return p
}

// holdRow holds a row after its first attempt. When an earlier row of its aggregate is held, it
// waits for that one instead of being retried by its own schedule.
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

// settle moves the cursor over the settled rows of a part and returns the rows to hold, which must
// be written in the cursor's transaction. When the session ended before all outcomes were known,
// intact is false and the cursor stays before the first row without one; the relay publishes from
// there again. The rows behind that one are not held either, for they will be read again.
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

// clearSuspects counts published rows that did not end the session.
func (s *state) clearSuspects(rows int) { s.suspects = max(0, s.suspects-rows) }

// closeWindow makes the right edge of the window the left edge of the next one.
func (s *state) closeWindow() {
	s.cursor.A, s.cursor.LastSeq = s.cursor.B, 0
}

// brokerBroken reports whether the broker refuses so many rows that the broker counts as broken.
func (s *state) brokerBroken() bool { return s.refusedCount >= MaxHeld }

// settleLost settles all parts that were in flight when the session ended; outcomes are those that
// are known of the first part. When the broker ended the session with a complaint about a message
// and a single row was in flight, that row is quarantined: it would end every further session.
// When several were in flight, the next session publishes as many rows one at a time.
func (s *state) settleLost(parts []part, outcomes []outcome, code int,
	reason string) (holds []heldRow) {
	inFlight, intact := 0, true
	var first row // the first without an outcome
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

// isolate reports whether a single row was in flight when the broker ended the session because of
// a message. When there were several, it makes all of them suspects.
func (s *state) isolate(inFlight, code int) (single bool) {
	if !blamesMessage(code) {
		return false
	}
	if inFlight > 1 {
		s.suspects = inFlight
	}
	return inFlight == 1
}

// blamesMessage reports whether a reply code of AMQP 0-9-1 is about the message that was sent. The
// other codes are about the broker, its configuration or an operator's action.
func blamesMessage(code int) bool {
	switch code {
	// content too large, precondition failed, frame error, syntax error, unexpected frame, not
	// implemented
	case 311, 406, 501, 502, 505, 540:
		return true
	}
	return false
}

// settleHeld divides held rows that were published again into those that the broker confirmed and
// those that stay held, with their next retry. When the session ended first, intact is false and
// the rows without an outcome stay as they are; quarantine decides whether one of them is to blame.
func (s *state) settleHeld(due []heldRow, outcomes []outcome) (released, holds []heldRow,
	intact bool) {
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

// quarantine is settleLost for held rows: unsettled are those without an outcome when the session
// ended, and otherInFlight counts the rows of windows and streams that were in flight with them.
func (s *state) quarantine(unsettled []heldRow, otherInFlight, code int,
	reason string) (holds []heldRow) {
	if !s.isolate(len(unsettled)+otherInFlight, code) {
		return nil
	}
	h := unsettled[0]
	h.attempts, h.kind, h.reason, h.retryIn = h.attempts+1, heldQuarantined, reason, noRetry
	return []heldRow{h}
}

// batch returns most, or 1 while there are suspects.
func (s *state) batch(most int) int {
	if s.suspects > 0 {
		return 1
	}
	return most
}

// backoff is the time until the next attempt; it doubles with each attempt. The attempts are 0 for
// a row that has only waited for an earlier row of its aggregate, and was then refused while the
// broker counted as broken.
func backoff(attempts int, kind rabbit.Outcome) time.Duration {
	if kind == rabbit.Unsendable {
		return noRetry
	}
	return min(holdFirst<<min(max(0, attempts-1), maxDoublings), holdMax)
}
