package consumer

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/topology"
)

// The bounds of a consumer that are not in Bounds.
const (
	deadPrefetch = 20 // dead letters may be large, and parking them is not urgent
	// closeTimeout is for closing the sessions, after ShutdownTimeout.
	closeTimeout = 3 * time.Second
	// breakTimeout is for begun work when the session breaks, before the next one begins.
	breakTimeout = time.Second
)

// Consumer consumes the queue of one service, and runs its retries and deadlines. Fill in the
// fields, then Run it once.
type Consumer struct {
	Name     string // of the service in the topology
	URL      string // of the broker
	Topology topology.Topology
	Handlers []Handler
	DB       *sqlx.DB
	Inbox    *inbox.Inbox
	Outbox   *outbox.Outbox
	// Ready is called at the start of each session, before anything is consumed; nil: always ready.
	Ready func(*rabbit.Session) error
	Log   zerolog.Logger
	Bounds
	// Middleware wraps every handler, reaction and call, the first one outermost.
	Middleware []Middleware

	prepared sync.Once
	bounds   Bounds // with their defaults
	handlers *handlers
	inHand   sync.WaitGroup // the lanes of all sessions
	prefetch prefetch       // of the next session
	work     *transactor
	decoder  *decoder
	keeper   *keeper
	identity atomic.Pointer[string] // of the database, as last read
	sessions health
	stats    counters
}

// counters are the numbers of Stats.
type counters struct{ handled, duplicates, delayed, parked, dropped, batches atomic.Int64 }

// Stats are the counters of a consumer since the start of the process.
type Stats struct {
	Handled, Duplicates, Delayed, Parked, Batches int64
	// Dropped counts malformed messages that were not kept, since too many of their source are parked.
	Dropped int64
	// Hanging is how many runs of handlers have not returned although their time is over, now.
	Hanging int64
}

// Stats may be called at any time.
func (c *Consumer) Stats() Stats {
	c.prepare()
	s := &c.stats
	return Stats{
		Handled: s.handled.Load(), Duplicates: s.duplicates.Load(), Delayed: s.delayed.Load(),
		Parked: s.parked.Load(), Dropped: s.dropped.Load(), Batches: s.batches.Load(),
		Hanging: c.work.hanging.now(),
	}
}

// prepare builds what Run and Emit need. Two handlers for one type are a mistake in the program and
// panic.
func (c *Consumer) prepare() {
	c.prepared.Do(func() {
		c.bounds = c.Bounds.orDefaults()
		c.prefetch.full = c.bounds.Prefetch
		service, _ := c.Topology.Service(c.Name)
		service.Name = c.Name
		c.handlers = newHandlers(service, c.Handlers, c.bounds)
		c.work = &transactor{db: c.DB, statements: pg.NewStatements(c.DB), inbox: c.Inbox,
			outbox: c.Outbox, handlers: c.handlers, hanging: &hanging{log: c.Log},
			middleware: c.Middleware, log: c.Log, requested: make(chan struct{}, 1)}
		c.decoder = &decoder{topology: c.Topology, handlers: c.handlers, hanging: c.work.hanging,
			log: c.Log}
		c.keeper = &keeper{work: c.work, inbox: c.Inbox, handlers: c.handlers, stats: &c.stats, log: c.Log}
	})
}

// Join runs f in the transaction of ctx, which is that of Tx or of a handler, or in Tx if ctx has
// none. After an error of f, other than a refusal, the transaction that f has joined is not
// committed, even if the code around f ignores the error: f may have written a part of its rows.
func (c *Consumer) Join(ctx context.Context,
	f func(ctx context.Context, tx *sqlx.Tx) error) error {
	c.prepare()
	return c.work.join(ctx, f)
}

// Tx runs f in a transaction of the service's database, and hurries the relay and the calls when it
// has committed. It runs f again, up to MaxReruns times, when another transaction was first or the
// database has chosen this one to end a deadlock, so f must be repeatable. What f publishes,
// schedules or requests happens if, and only if, Tx returns nil, or the commit arrived although its
// outcome is unknown (pg.ErrUnknownOutcome).
func (c *Consumer) Tx(ctx context.Context, f func(ctx context.Context, tx *sqlx.Tx) error) error {
	c.prepare()
	return c.work.repeat(ctx, f)
}

// Run consumes until ctx is done, then finishes begun work within ShutdownTimeout. It waits while
// the broker or the database cannot be reached.
func (c *Consumer) Run(ctx context.Context) {
	c.prepare()
	var running sync.WaitGroup
	running.Go(func() { c.runDue(ctx, nil, c.redo) })
	running.Go(func() { c.care(ctx) })
	if len(c.handlers.calls) > 0 {
		running.Go(func() { c.runCalls(ctx) })
	}
	if c.consumes() {
		running.Go(func() { rabbit.Supervise(ctx, c.Log, c.session) })
		size := prefetch{full: c.bounds.Prefetch}
		running.Go(func() {
			rabbit.Supervise(ctx, c.Log, func(ctx context.Context) error {
				err := c.consumeDead(ctx, min(deadPrefetch, size.now()))
				size.adjust(err)
				return err
			})
		})
	}
	<-ctx.Done()
	var all sync.WaitGroup
	all.Go(func() { running.Wait(); c.inHand.Wait() })
	waitAtMost(&all, c.bounds.ShutdownTimeout+closeTimeout)
}

// session is one session with the broker.
func (c *Consumer) session(ctx context.Context) error {
	err := c.consume(ctx)
	if ctx.Err() == nil {
		c.sessions.ended(err)
		c.prefetch.adjust(err)
	}
	return err
}

// consume hands the deliveries of one session to lanes by their subject.
func (c *Consumer) consume(ctx context.Context) error {
	deliveries, err := c.subscribe(ctx, "consume", topology.QueueOf(c.Name), c.prefetch.now())
	if err != nil {
		return err
	}
	defer deliveries.Close()
	c.sessions.began()
	c.Log.Info().Str("queue", topology.QueueOf(c.Name)).Msg("consuming")
	seed := maphash.MakeSeed()
	lanes := make([]*lane, c.bounds.Lanes)
	var running sync.WaitGroup
	for i := range lanes {
		// With room for the whole prefetch the dispatcher never waits for a lane.
		lanes[i] = &lane{Consumer: c, deliveries: deliveries,
			in: make(chan amqp.Delivery, c.bounds.Prefetch)}
		running.Go(func() { lanes[i].run(ctx) })
	}
	c.inHand.Go(running.Wait)
	for taking := true; taking; {
		select {
		case d, ok := <-deliveries.C():
			if taking = ok; ok {
				lanes[c.handlers.laneOf(maphash.String(seed, subjectOf(d)), d.Type)].in <- d
			}
		case <-ctx.Done():
			taking = false
		}
	}
	for _, l := range lanes {
		close(l.in)
	}
	if ctx.Err() != nil {
		_ = deliveries.Stop() // the session is closed anyway
		waitAtMost(&running, c.bounds.ShutdownTimeout)
	} else {
		// What the lanes still handle can no longer be acknowledged and is delivered again, preferably
		// as a duplicate; but a slow handler must not delay the next session.
		waitAtMost(&running, breakTimeout)
	}
	return over(deliveries)
}

// over returns the reason why there are no more deliveries.
func over(deliveries *rabbit.Deliveries) error {
	if err := deliveries.Err(); err != nil {
		return err
	}
	return rabbit.ErrClosed
}

// waitAtMost bounds a shutdown: what is not finished then is rolled back with the process.
func waitAtMost(running *sync.WaitGroup, d time.Duration) {
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

func subjectOf(d amqp.Delivery) string {
	for _, key := range []string{"ce-subject", "cloudEvents_subject", "cloudEvents:subject"} {
		if s, ok := d.Headers[key].(string); ok {
			return s
		}
	}
	return ""
}
