package outbox

import (
	"errors"
	"time"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// result is how an attempt ended. Those that make a held row are also the kinds in outbox_held.
type result string

const (
	unknown     result = ""            // in flight, or the session ended before the broker answered
	confirmed   result = "confirmed"   // every queue to which the row was routed has accepted it
	refused     result = "refused"     // the broker nacked it, or did not confirm it in time
	unroutable  result = "unroutable"  // no queue is bound for its type
	quarantined result = "quarantined" // it can never be published as it is
	behind      result = "behind"      // an earlier row of its aggregate is held
	unseen      result = "unseen"      // no query finds it in the outbox
	passed      result = "passed"      // it is held already and was left alone
)

// origin is the part of the relay that wants a row published.
type origin int

const (
	ofSource origin = iota // the first publication of a committed row
	ofHeld                 // a held row whose next attempt is due
	ofReplay               // a row of a replay request
)

// attempt is one row on its way: every row that the relay publishes, from any origin, becomes an
// attempt, and the attempts are settled in their order. An attempt without a result is in
// flight. One that is not sent has its result from the beginning.
type attempt struct {
	row
	origin  origin
	tries   int             // of a held row, before this attempt
	free    bool            // it was admitted behind a held row that is released by now
	confirm *rabbit.Pending // nil: it was not sent
	span    func(error)     // ends its span; nil: there is none, or it has ended
	result  result
	reason  string
}

// heldRow is a row of outbox_held.
type heldRow struct {
	seq       int64
	aggregate string
	kind      result // not confirmed or passed
	reason    string
	attempts  int
	retryIn   time.Duration // from now until the next attempt, or noRetry
}

// changes are what settled attempts change in the database, in one transaction with the cursor.
type changes struct {
	holds     []heldRow // to insert, or with a new schedule
	released  []heldRow // published at last
	replayed  replayProgress
	published int64 // rows that were confirmed, without replays
	retried   bool  // attempts of held rows are among the settled ones
}

// empty reports whether nothing but the cursor has changed.
func (c changes) empty() bool {
	return len(c.holds) == 0 && len(c.released) == 0 && c.replayed == replayProgress{}
}

// errUnsettled is the end of the spans of attempts that have no result at the end of a term.
var errUnsettled = errors.New("the relay stopped before the broker had confirmed the event")

// endSpan ends the span of an attempt with its result. For an attempt without one, the broker may
// or may not have got the event; unsettled says why that is not known.
func (a *attempt) endSpan(unsettled error) {
	if a.span == nil {
		return
	}
	switch a.result {
	case confirmed:
		a.span(nil)
	case unknown:
		a.span(unsettled)
	default:
		a.span(errors.New(a.reason))
	}
	a.span = nil
}

// endSpans ends the spans of a queue when no more results can come.
func endSpans(queue []attempt, unsettled error) {
	for i := range queue {
		queue[i].endSpan(unsettled)
	}
}
