package outbox

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/tally"
	"github.com/quadrille-go/quadrille/internal/tracing"
)

// The bounds of the relay.
const (
	// Every poll finds all committed rows. Nudges only make it come earlier.
	pollInterval    = 25 * time.Millisecond
	standbyInterval = 250 * time.Millisecond // between two attempts to get the lead
	heldInterval    = 200 * time.Millisecond // between two looks for held rows that are due
	saveInterval    = 50 * time.Millisecond  // between two saves of the cursor within a window
	// windowMax bounds the seqs that are in memory. The window of a larger backlog is read in parts.
	windowMax = 1_000_000
	chunkSize = 250 // rows that are fetched and published at once
	// maxQueue bounds the attempts in the queue. A batch of held rows and one of a replay come on top,
	// and together they stay below rabbit.MaxInFlight.
	maxQueue = 3 * chunkSize
)

// ErrMissing says that committed rows which were not published yet have disappeared from the
// outbox.
var ErrMissing = errors.New("unpublished events are missing from the outbox")

// Relay publishes the events of an outbox. Every replica of a service may run one: a single leader
// publishes, and the others stand by. A leader that has lost the lead without noticing may publish
// an event twice, which inboxes absorb, but it cannot move the cursor.
type Relay struct {
	Outbox *Outbox
	URL    string // of the broker
	// Database is the URL of the outbox's database, on which the leader listens for the nudges of
	// other replicas. Empty: their events wait for the next poll.
	Database string
	Name     string // of the service; the connection to the broker has this name
	Exchange string
	// Mandatory reports whether an event of this type must reach a queue. Its events are held until
	// a queue is bound for the type. An event of another type that no queue is bound for is lost,
	// which is counted and logged. Nil: no type is mandatory.
	Mandatory func(eventType string) bool
	// Optional reports whether an event of this type may have no queue. Its loss is counted but not
	// logged. Nil: no type is optional.
	Optional func(eventType string) bool
	// Keep is how long published events stay in the outbox; the longest Keep of all replicas counts.
	// 0: DefaultKeep; negative: they are never deleted.
	Keep time.Duration
	// Source is a stream that the relay can use in place of the window, if Outbox.UseSource says so.
	// Nil: there is none.
	Source Source
	// Ready is called at the start of each broker session. While it returns an error, nothing is
	// published. Nil: always ready.
	Ready func(*rabbit.Session) error
	// Ended is called with the reason when a broker session has ended or could not begin. Nil: nobody
	// is told.
	Ended  func(error)
	Tracer *tracing.Tracer // nil: nothing is traced
	Log    zerolog.Logger

	// What must survive a term, on the goroutine of the term:
	suspects map[int64]bool // see state.suspects
	limits   brokerLimits
	unrouted unrouted
	// On the goroutine of the retention:
	loggedKeep float64
	retainedTo int64 // the seq that the last pass of the retention has reached

	maxRows   int          // of a window in memory; 0: windowMax
	token     atomic.Int64 // of the lead; 0: the relay stands by
	published atomic.Int64
	deleted   atomic.Int64
	held      atomic.Int64
	anomalies atomic.Int64
	oldestSec atomic.Int64
	leading   atomic.Bool
	streaming atomic.Bool
	lag       atomic.Int64
	attempts  attempts
	latency   tally.Histogram
	publisher atomic.Pointer[rabbit.Publisher] // of the present session; nil: there is none
}

// attempts counts what came of the attempts to publish, other than that the broker confirmed them
// or that no queue was bound.
type attempts struct{ confirmed, refused, unroutable, unsendable, lost atomic.Int64 }

// Stats counts what a relay has done since the process started, and describes its present state.
type Stats struct {
	Published int64 // events that the broker has confirmed, without replays
	Forgotten int64 // old rows that the retention has deleted
	Held      int64 // rows that are held now
	// Anomalies counts windows in which an event was missing, and stored cursors that this leader did
	// not write. The relay starts again from the stored cursor each time.
	Anomalies int64
	Unrouted  int64 // events that were published while no queue was bound for them; they are lost
	Leading   bool
	Streaming bool // rows come from the Source, not from the window
	// OldestSec is the age in seconds of the oldest transaction that prevents PostgreSQL from removing
	// old versions of rows. Only the leader measures it; 0 if none is older than five minutes.
	OldestSec int64
	LagBytes  int64 // of the write-ahead log that the server keeps for the stream

	// The results of all attempts to publish an event, those of held events and of replays included.
	// Those of Unrouted are not among the confirmed ones.
	Confirmed  int64 // every queue to which it was routed has accepted it
	Refused    int64 // the broker nacked it, or did not confirm it in time
	Unroutable int64 // its type is mandatory, and no queue was bound
	Unsendable int64 // it does not fit the protocol
	Lost       int64 // the session ended before the broker answered
	// Latency is the time from the write to the socket until the relay has seen the confirm.
	Latency tally.Distribution
	Blocked bool // the broker accepts no events, because of a memory or disk alarm
}

// Stats returns the present counts. It is safe for concurrent use.
func (r *Relay) Stats() Stats {
	return Stats{Published: r.published.Load(), Forgotten: r.deleted.Load(), Held: r.held.Load(),
		Anomalies: r.anomalies.Load(), Unrouted: r.unrouted.total.Load(), OldestSec: r.oldestSec.Load(),
		Leading: r.leading.Load(), Streaming: r.streaming.Load(), LagBytes: r.lag.Load(),
		Confirmed: r.attempts.confirmed.Load(), Refused: r.attempts.refused.Load(),
		Unroutable: r.attempts.unroutable.Load(), Unsendable: r.attempts.unsendable.Load(),
		Lost: r.attempts.lost.Load(), Latency: r.latency.Distribution(), Blocked: r.blocked()}
}

// Run publishes until ctx is done. When the broker or the database fails, it logs the error, backs
// off and starts again with a new session.
func (r *Relay) Run(ctx context.Context) {
	var background sync.WaitGroup
	background.Go(func() { r.announce(ctx) })
	defer background.Wait()
	rabbit.Supervise(ctx, r.Log, func(ctx context.Context) error {
		err := r.session(ctx)
		if r.Ended != nil && ctx.Err() == nil {
			r.Ended(err)
		}
		return err
	})
}

// session runs one session with the broker.
func (r *Relay) session(ctx context.Context) error {
	session, err := rabbit.Open(ctx, r.URL, r.Name+"/publish")
	if err != nil {
		return err
	}
	defer session.Close()
	if r.Ready != nil {
		if err := r.Ready(session); err != nil {
			return err
		}
	}
	publisher, err := rabbit.NewPublisher(session)
	if err != nil {
		return err
	}
	r.publisher.Store(publisher)
	defer r.publisher.Store(nil)
	return r.awaitLead(ctx, publisher)
}

func (r *Relay) blocked() bool {
	publisher := r.publisher.Load()
	return publisher != nil && publisher.Blocked()
}

// awaitLead waits for the lead and then runs a term. It is called with an open broker session only:
// a leader that cannot reach the broker would keep a replica that can from publishing.
func (r *Relay) awaitLead(ctx context.Context, publisher *rabbit.Publisher) error {
	for {
		lead, err := leader(r.Outbox.db).Try(ctx)
		if err != nil {
			return err
		}
		if lead != nil {
			defer lead.Release()
			r.leading.Store(true)
			defer r.leading.Store(false)
			r.token.Store(lead.Token)
			defer r.token.Store(0)
			return r.lead(ctx, publisher, lead)
		}
		if err := r.forwardNudges(ctx, publisher); err != nil {
			return err
		}
	}
}

// forwardNudges sends the nudges of a standby to the leader until standbyInterval has passed.
// NOTIFY has a transaction of its own and is never part of a business transaction, because
// transactions with a NOTIFY commit one after another. Its error is ignored: the leader polls.
func (r *Relay) forwardNudges(ctx context.Context, publisher *rabbit.Publisher) error {
	until := time.Now().Add(standbyInterval)
	for time.Now().Before(until) {
		if err := wait(ctx, publisher, time.Until(until), r.Outbox.nudge); err != nil {
			return err
		}
		if time.Now().Before(until) {
			_, _ = r.Outbox.db.ExecContext(ctx, `NOTIFY `+notifyChannel)
		}
	}
	return nil
}

const notifyChannel = "outbox"

// listen turns the notifications of other replicas into nudges until ctx is done.
func (r *Relay) listen(ctx context.Context) {
	listener := pq.NewListener(r.Database, time.Second, time.Minute, nil)
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	defer func() { _ = listener.Close() }()
	// Listen blocks until there is a connection, or until Close.
	if err := listener.Listen(notifyChannel); err != nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-listener.Notify:
			r.Outbox.Nudge()
		}
	}
}

// wait returns after d or at a nudge. It returns an error when ctx is done or the broker session
// has ended.
func wait(ctx context.Context, publisher *rabbit.Publisher, d time.Duration,
	nudge <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-nudge:
	case <-ctx.Done():
		return ctx.Err()
	case <-publisher.Done():
		return publisher.Err()
	}
	return nil
}
