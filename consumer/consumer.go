package consumer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
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
	work     *transactor
	decoder  *decoder
	keeper   *keeper
	sessions *sessions
	due      *due
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
		service, _ := c.Topology.Service(c.Name)
		service.Name = c.Name
		c.handlers = newHandlers(service, c.Handlers, c.bounds)
		c.work = &transactor{db: c.DB, statements: pg.NewStatements(c.DB), inbox: c.Inbox,
			outbox: c.Outbox, handlers: c.handlers, hanging: &hanging{log: c.Log},
			middleware: c.Middleware, stats: &c.stats, log: c.Log, requested: make(chan struct{}, 1)}
		c.decoder = &decoder{topology: c.Topology, handlers: c.handlers, hanging: c.work.hanging,
			log: c.Log}
		c.keeper = &keeper{c.work}
		c.due = &due{transactor: c.work, decoder: c.decoder, keeper: c.keeper}
		c.sessions = &sessions{config: c, prefetch: prefetch{full: c.bounds.Prefetch},
			batches: &batches{transactor: c.work, decoder: c.decoder, keeper: c.keeper}}
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
	running.Go(func() { c.due.run(ctx) })
	running.Go(func() { c.due.care(ctx) })
	if len(c.handlers.calls) > 0 {
		running.Go(func() { newCalls(c.work, c.decoder, c.keeper).run(ctx) })
	}
	if c.consumes() {
		running.Go(func() { c.sessions.run(ctx) })
	}
	<-ctx.Done()
	waitAtMost(&running, c.bounds.ShutdownTimeout+closeTimeout)
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
