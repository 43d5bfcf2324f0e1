package outbox

import (
	"maps"
	"slices"
	"time"
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
	// maxSuspects bounds the suspects that are remembered. Beyond it only the latest are, and a row
	// that is forgotten may end one more session.
	maxSuspects = 10_000
)

// state is the queue of attempts and the decisions about them: which rows are published, which are
// held, and how far the cursor may move. It does no I/O and reads no clock, so that a test can run
// it through every order of failures.
//
// A row is settled when the broker has confirmed it, or when it is written to outbox_held. Rows are
// settled in the order of the queue, and the cursor passes settled rows only; that is what keeps an
// event from being lost.
type state struct {
	queue []attempt // the oldest first
	// unsent are attempts that are about to follow into the queue. Settling goes on meanwhile, since
	// a suspect among them is sent alone.
	unsent []attempt
	// settled is the number of the last settled row of the source: that row and all before it are
	// settled. A new source begins again at 0.
	settled int64
	// heldAggregates are, of the aggregates of the rows that were admitted last, those with a held
	// row. Their later rows are held too, or they would overtake it.
	heldAggregates map[string]bool
	// heldBefore are, of the aggregates of the attempts, those of which a row was held since.
	heldBefore   map[string]bool
	failed       map[string]bool // aggregates of which a row of the present held batch has failed
	heldCount    int             // rows in outbox_held
	refusedCount int             // those of kind refused, counted up to MaxHeld
	// suspects are the seqs of rows that were in flight together when the broker ended a session
	// because of one of them. Each is sent alone, since that shows which of them it was.
	suspects map[int64]bool
}

// newState returns the state of a new term. The suspects survive it.
func newState(suspects map[int64]bool) state {
	return state{suspects: suspects, heldAggregates: map[string]bool{}, heldBefore: map[string]bool{},
		failed: map[string]bool{}}
}

// admit decides about rows of the source: most are to be sent; those behind a held row, and those
// that cannot be published, are to be held. Rows may come a second time, when the source has
// changed or a stream has gone back to its checkpoint; rows that are held already are passed over
// then, so that they keep their attempts and their schedule.
func (s *state) admit(rows []row, held map[int64]bool) []attempt {
	for _, a := range s.queue { // the rows to hold of the queue are not in the table yet
		if a.origin == ofSource && a.result.holds() {
			s.heldAggregates[a.record.Subject] = true
		}
	}
	attempts := make([]attempt, len(rows))
	for i, r := range rows {
		a := attempt{row: r}
		switch {
		case held[r.seq]:
			a.result = passed
		case r.fault != nil:
			a.result, a.reason = quarantined, r.fault.Error()
			s.heldAggregates[r.record.Subject] = true
		case s.heldAggregates[r.record.Subject]:
			a.result, a.reason = behind, "an earlier event of the same aggregate is held"
		}
		attempts[i] = a
	}
	return attempts
}

// holds reports whether a row of the source with this result is held.
func (r result) holds() bool { return r != unknown && r != confirmed && r != passed }

// run returns how many of the unsent attempts are sent next. A suspect is sent alone: when nothing
// else is in flight, and nothing else is sent before its result is known.
func (s *state) run() (n int, alone bool) {
	for n < len(s.unsent) && !(s.unsent[n].result == unknown && s.suspects[s.unsent[n].seq]) {
		n++
	}
	if n == 0 && len(s.unsent) > 0 {
		return 1, true
	}
	return n, false
}

// next removes the next run of n attempts from the unsent ones.
func (s *state) next(n int) []attempt {
	attempts := s.unsent[:n]
	s.unsent = s.unsent[n:]
	return attempts
}

// settle removes the attempts at the front of the queue that have a result, and returns what they
// change.
func (s *state) settle() (c changes) {
	n := slices.IndexFunc(s.queue, func(a attempt) bool { return a.result == unknown })
	if n < 0 {
		n = len(s.queue)
	}
	for _, a := range s.queue[:n] {
		delete(s.suspects, a.seq)
		switch a.origin {
		case ofSource:
			s.settleRow(a, &c)
		case ofHeld:
			s.settleHeld(a, &c)
		case ofReplay:
			c.replayed.add(a)
		}
	}
	clear(s.queue[:n]) // so that what the attempts point to can be collected
	s.queue = s.queue[n:]
	s.free(c.released)
	s.forget()
	return c
}

// forget removes the aggregates from heldBefore that have no attempt any more.
func (s *state) forget() {
	if len(s.heldBefore) == 0 {
		return
	}
	queued := map[string]bool{}
	for _, list := range [][]attempt{s.queue, s.unsent} {
		for _, a := range list {
			queued[a.record.Subject] = true
		}
	}
	maps.DeleteFunc(s.heldBefore, func(aggregate string, _ bool) bool { return !queued[aggregate] })
}

// settleRow settles the first publication of a row. The row that fails first in its aggregate has
// a schedule of its own, and the later ones wait for it.
func (s *state) settleRow(a attempt, c *changes) {
	s.settled = a.number
	switch a.result {
	case confirmed:
		c.published++
		return
	case passed:
		return
	}
	h := heldRow{seq: a.seq, aggregate: a.record.Subject, kind: a.result, reason: a.reason}
	switch {
	case a.result == behind:
		h.retryIn = noRetry
		if a.free {
			h.retryIn = 0
		}
	default:
		h.attempts, h.retryIn = 1, backoff(1, a.result)
		if s.heldBefore[h.aggregate] && h.kind != quarantined {
			h.kind, h.retryIn = behind, noRetry
		}
	}
	s.heldBefore[h.aggregate] = true
	s.heldCount++
	if h.kind == refused {
		s.refusedCount++
	}
	c.holds = append(c.holds, h)
}

// settleHeld releases a held row that was confirmed, and gives the others their next attempt. While
// the broker counts as broken no attempt is counted.
func (s *state) settleHeld(a attempt, c *changes) {
	c.retried = true
	h := heldRow{seq: a.seq, aggregate: a.record.Subject, kind: a.result, reason: a.reason,
		attempts: a.tries}
	if a.result == confirmed {
		c.published++
		c.released = append(c.released, h)
		s.heldCount--
		return
	}
	if !s.brokerBroken() {
		h.attempts++
	}
	h.retryIn = backoff(h.attempts, a.result)
	if s.failed[h.aggregate] && h.kind != quarantined {
		h.kind, h.retryIn = behind, noRetry
	}
	s.failed[h.aggregate] = true
	c.holds = append(c.holds, h)
}

// free makes those rows due at once that were admitted behind a held row which is released by now,
// and are settled later. They are not in the table yet, and so the release does not make them due
// there.
func (s *state) free(released []heldRow) {
	for _, h := range released {
		for _, list := range [][]attempt{s.queue, s.unsent} {
			for i, a := range list {
				if a.result == behind && a.record.Subject == h.aggregate {
					list[i].free = true
				}
			}
		}
		delete(s.heldBefore, h.aggregate)
	}
}

// lost decides about the attempts in flight when the broker session ended with this reply code.
// When the broker complained about a message and a single row was in flight, that row is
// quarantined: it would end every further session. When several were in flight, all of them become
// suspects. The others have no result, and are published again by the next session.
func (s *state) lost(code int, reason string) {
	if !blamesMessage(code) {
		return
	}
	var inFlight []int
	for i, a := range s.queue {
		if a.result == unknown {
			inFlight = append(inFlight, i)
		}
	}
	if len(inFlight) == 1 {
		a := &s.queue[inFlight[0]]
		a.result, a.reason = quarantined, reason
		return
	}
	if len(s.suspects)+len(inFlight) > maxSuspects {
		clear(s.suspects)
	}
	for _, i := range inFlight {
		s.suspects[s.queue[i].seq] = true
	}
}

// waiting reports whether the queue has an attempt of this origin.
func (s *state) waiting(o origin) bool {
	return slices.ContainsFunc(s.queue, func(a attempt) bool { return a.origin == o })
}

// brokerBroken reports whether the broker refuses so many rows that the broker counts as broken.
func (s *state) brokerBroken() bool { return s.refusedCount >= MaxHeld }

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

// backoff is the time until the next attempt; it doubles with each attempt. The attempts are 0 for
// a row that has only waited for an earlier row of its aggregate, and was then refused while the
// broker counted as broken.
func backoff(attempts int, kind result) time.Duration {
	if kind == quarantined {
		return noRetry
	}
	return min(holdFirst<<min(max(0, attempts-1), maxDoublings), holdMax)
}
