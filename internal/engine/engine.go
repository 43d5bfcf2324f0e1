// Package engine runs a consumer: it turns deliveries into transactions of inbox, reaction and
// outbox, and acknowledges them afterwards. It is the only package that does.
//
// It sees a handler as plain data and functions, which package consumer makes of what an author
// types. Its parts are the sessions with the broker, the lanes and their batches, what is due, the
// outside calls and their answers, and what is kept for another attempt or for a person. What is
// hard to decide is a pure function: see Retry, handlers, prefetch and health.
package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/tracing"
	"github.com/quadrille-go/quadrille/topology"
)

// closeTimeout is for closing the sessions, after ShutdownTimeout.
const closeTimeout = 3 * time.Second

// Service is what an engine runs. Package consumer compiles it.
type Service struct {
	Name       string
	Topology   topology.Topology
	Handlers   []Handler
	Bounds     Bounds
	Middleware []Middleware // around every handler, the first one outermost
}

// Outbox is where an engine puts events that are to be published.
type Outbox interface {
	// Append stores events in tx, to be published if it commits.
	Append(ctx context.Context, tx *sqlx.Tx, list ...events.Event) error
	// Nudge hurries the relay after a commit.
	Nudge()
}

// Config is a service and what it runs on.
type Config struct {
	Service
	URL    string // of the broker
	DB     *sqlx.DB
	Inbox  *inbox.Inbox
	Outbox Outbox
	// Ready is called at the start of each session, before anything is consumed; nil: always ready.
	Ready  func(*rabbit.Session) error
	Tracer *tracing.Tracer // nil: nothing is traced
	Log    zerolog.Logger
	// RenewIdle is renewIdle, or that of a test.
	RenewIdle time.Duration
}

// Engine consumes the queue of one service, and runs its retries, deadlines and calls. Its methods
// are safe for concurrent use; Run may be called once.
type Engine struct {
	*transactor
	decoder  *decoder
	sessions *sessions
	due      *due
	calls    *calls
}

// New returns an engine. It panics if two handlers are for one type, which is a mistake in the
// program that the Validate of package consumer reports.
func New(c Config) *Engine {
	handlers := newHandlers(c.Service)
	t := &transactor{db: c.DB, statements: pg.NewStatements(c.DB), inbox: c.Inbox, outbox: c.Outbox,
		handlers: handlers, hanging: &hanging{log: c.Log}, middleware: c.Middleware,
		tracer: c.Tracer, stats: newCounters(handlers), log: c.Log,
		requested: make(chan struct{}, 1)}
	r := &decoder{handlers: handlers, hanging: t.hanging, log: c.Log}
	k := &keeper{t}
	return &Engine{transactor: t, decoder: r,
		sessions: &sessions{config: c, prefetch: prefetch{full: c.Bounds.Prefetch},
			batches: &batches{transactor: t, decoder: r, keeper: k}},
		due:   &due{transactor: t, decoder: r, keeper: k},
		calls: newCalls(t, r, k)}
}

// Run consumes until ctx is done, then finishes begun work within ShutdownTimeout. It waits while
// the broker or the database cannot be reached.
func (e *Engine) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { e.due.run(ctx) })
	running.Go(func() { e.due.care(ctx) })
	running.Go(func() {
		(&forgetter{e.transactor, inbox.NewForgetter(e.inbox), map[string]string{}}).run(ctx)
	})
	if len(e.handlers.calls) > 0 {
		running.Go(func() { e.calls.run(ctx) })
	}
	if e.handlers.consumes() {
		running.Go(func() { e.sessions.run(ctx) })
	}
	<-ctx.Done()
	waitAtMost(&running, e.handlers.bounds.ShutdownTimeout+closeTimeout)
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

// Healthy returns nil while deliveries are handled, and otherwise the reason: there is no session
// with the broker, its sessions break, or handlers hang.
func (e *Engine) Healthy() error {
	var sessions error // of a service without a queue there are none
	if e.handlers.consumes() {
		sessions = e.sessions.health.err(time.Now())
	}
	return errors.Join(sessions, e.hanging.err())
}

// SessionEnds counts the sessions that ended, or did not begin, by their cause; see rabbit.CauseOf.
func (e *Engine) SessionEnds() map[string]int64 { return e.sessions.health.counts() }

// Stats are the counters of an engine; see consumer.Stats.
type Stats struct {
	Handled, Duplicates, Delayed, Parked, Batches int64
	Dropped                                       int64
	Hanging                                       int64
}

// Stats returns the counters.
func (e *Engine) Stats() Stats {
	s := e.stats
	return Stats{
		Handled: s.events.Total(eventHandled), Duplicates: s.events.Total(eventDuplicate),
		Delayed: s.events.Total(eventDelayed), Parked: s.events.Total(eventParked),
		Dropped: s.dropped.Load(), Batches: s.batches.Load(),
		Hanging: e.hanging.now(),
	}
}
