package outbox

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/rabbit"
)

// The bounds of the relay.
const (
	pollInterval    = 25 * time.Millisecond // the truth; nudges only hurry it
	standbyInterval = 250 * time.Millisecond
	heldInterval    = 200 * time.Millisecond
	saveInterval    = 50 * time.Millisecond // of the cursor, in the middle of a window
	// rows whose places are in memory; the window of a larger backlog is read in several goes
	windowMax = 1_000_000
	chunkSize = 250 // rows fetched and published at once
	// at most chunkSize × chunksInFlight, plus maxHeldBatch, await their confirm
	chunksInFlight = 3
)

// ErrMissing says that committed events which are not published yet cannot be read from the outbox
// any more.
var ErrMissing = errors.New("events that are not published are missing from the outbox")

// Relay publishes an outbox. Any number of replicas may run one: a fenced leader publishes, the
// others stand by.
type Relay struct {
	Outbox *Outbox
	URL    string // of the broker
	// URL of the outbox's database, to hear the nudges of other replicas; empty: the poll finds their
	// events
	Database string
	Name     string // of the service: its connection is named after it
	Exchange string
	// Mandatory are the types that somebody must be bound for: their events wait in the outbox until
	// then. Events of other types that nobody is bound for are published to nobody, which is counted
	// and logged; nil: none is mandatory.
	Mandatory func(eventType string) bool
	// types that nobody need be bound for: that is counted, and no news; nil: none
	Optional func(eventType string) bool
	// how long history stays once published, where no replica wants longer; 0: DefaultKeep, negative:
	// without end
	Keep time.Duration
	// Source is what the relay may stream from instead of the window, when Outbox.Use says so; nil:
	// none.
	Source Source
	// Ready is asked at the start of each session, before anything is published; nil: always ready.
	Ready func(*rabbit.Session) error
	Log   zerolog.Logger

	maxRows        int  // rows of a window in memory; 0: windowMax
	suspects       int  // flow.careful survives the session
	replayOneByOne bool // one of the rows to be published again ends sessions
	limits         brokerLimits
	unrouted       unrouted
	loggedKeep     float64
	token          atomic.Int64 // of the lead; 0: it stands by
	retainedTo     int64        // how far the last pass of the retention has come
	published      atomic.Int64
	deleted        atomic.Int64
	held           atomic.Int64
	anomalies      atomic.Int64
	oldestSec      atomic.Int64
	leading        atomic.Bool
	streaming      atomic.Bool
	lag            atomic.Int64
}

// Stats is what a relay has done since it was started, and what it holds now.
type Stats struct {
	Published int64
	Forgotten int64 // old rows that were deleted
	Held      int64
	// windows that lacked an event, and cursors that somebody else has written: the relay begins again
	Anomalies int64
	Unrouted  int64 // published while nobody was bound for them, and so gone
	Leading   bool
	Streaming bool // from its Source, not from the window
	// seconds that a transaction has been open that keeps old versions of rows, on the leader; 0: none
	// for five minutes
	OldestSec int64
	LagBytes  int64 // of the server's log, which it keeps for the stream
}

// Stats may be called at any time.
func (r *Relay) Stats() Stats {
	return Stats{Published: r.published.Load(), Forgotten: r.deleted.Load(), Held: r.held.Load(),
		Anomalies: r.anomalies.Load(), Unrouted: r.unrouted.total.Load(), OldestSec: r.oldestSec.Load(),
		Leading: r.leading.Load(), Streaming: r.streaming.Load(), LagBytes: r.lag.Load()}
}

// Run relays until ctx is done. Trouble with the broker or the database is waited out.
func (r *Relay) Run(ctx context.Context) {
	var beside sync.WaitGroup
	beside.Go(func() { r.announce(ctx) })
	defer beside.Wait()
	rabbit.Supervise(ctx, r.Log, func(ctx context.Context) error {
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
		return r.awaitLead(ctx, publisher)
	})
}

// awaitLead waits for the lead and then leads. A replica without a broker never leads: it would
// keep one that has a broker from publishing.
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

// forwardNudges is what a standby does with nudges: it sends them to the leader, until it is time
// to try for the lead again. A NOTIFY is a transaction of its own, never part of a business
// transaction, since it makes commits wait for each other; it may fail, for the leader polls.
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
	if err := listener.Listen(notifyChannel); err != nil { // it waits for a connection, or for Close
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

// wait returns after d, at a nudge, or with an error when there is nothing left to wait for.
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
