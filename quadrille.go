// Package quadrille is the front door of the kit: a Service that says domain events through
// a transactional outbox and reacts to others' exactly once, on RabbitMQ and PostgreSQL.
//
// It promises at-least-once delivery with exactly-once effects: what is said in a transaction is
// published if and only if it committed, and a handler's transaction takes effect once per event,
// whatever crashes in between. It puts together what the packages events, topology, outbox, inbox
// and consumer do; each can be used without it. It opens no port and reads no environment.
package quadrille

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"
	"golang.org/x/sync/singleflight"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/inbox"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/rabbit"
	"github.com/quadrille-go/quadrille/resilience"
	"github.com/quadrille-go/quadrille/topology"
)

// The pauses between attempts to open a database that is not there yet.
const (
	openFirst = 100 * time.Millisecond
	openMax   = 5 * time.Second
)

// Service is one service. Fill in the fields, then call Run; Tx and Say may be used before and
// beside it. A Service must not be copied once used.
type Service struct {
	Name      string             // lower case, also the name of its exchange and its queue
	Publishes []events.Payload   // a value of each type that it publishes
	Handlers  []consumer.Handler // what it does about others' events, and about its own deadlines
	Database  string             // address of the service's own database, see postgres.Address
	AMQP      string             // amqp:// URL with the virtual host

	// LeaderDatabase is another address of the same database, for the sessions that a leader keeps,
	// for notifications and for a stream: a direct one where Database leads through a pooler. Empty:
	// Database.
	LeaderDatabase string

	// Topology is the choreography that the service is part of. When it names the service, the
	// topology must have been applied by an operator, and the service waits until it is. When it does
	// not, the service declares its own exchange, queue and bindings; so it does when Joins is empty.
	Topology topology.Topology
	// Migrations are those of the service's own tables, in goose's format, by the name of their line.
	// The kit's own tables are migrated in any case.
	Migrations map[string]fs.FS
	Log        zerolog.Logger // the zero value is silent
	// Breakers are those around the service's outside calls, for its figures and its admin endpoint.
	Breakers []*resilience.Breaker
	// Stream gives the relay a second way to find what was committed, such as that of package
	// outbox/cdc; outbox.Use chooses it. nil: there is only the window.
	Stream func(db *sqlx.DB) outbox.Source
	// Projections are the service's tables for reading, filled from its event store.
	Projections []eventstore.Projection
	// Mandatory are the types whose events wait until somebody is bound for them; nil: those with a
	// subscriber in the topology. Others go to nobody then, which Stats and the log tell.
	Mandatory func(eventType string) bool
	// Keep is how long what was published stays in the outbox, to be published again should the broker
	// lose it. 0 means outbox.DefaultKeep, less than 0 for ever.
	Keep time.Duration
	// HandlerTimeout is how long the transaction of a handler, or of a batch of them, may take. An
	// event whose handler takes longer fails and is tried again. 0 means
	// consumer.DefaultHandlerTimeout.
	HandlerTimeout time.Duration

	opening  singleflight.Group
	opened   atomic.Pointer[parts] // nil until the database could be reached and was migrated
	sessions atomic.Int32          // with the broker, past the check of the topology
}

// parts are what an open service is made of.
type parts struct {
	db       *sqlx.DB
	sessions *sqlx.DB // by LeaderDatabase; db where there is none
	outbox   *outbox.Outbox
	inbox    *inbox.Inbox
	consumer *consumer.Consumer
	relay    *outbox.Relay

	projector *eventstore.Projector // nil: no projections
}

// ErrMisconfigured says that waiting will not help: a name, a URL or the choreography is wrong.
var ErrMisconfigured = errors.New("service is misconfigured")

// Run relays and consumes until ctx is done, then finishes what is in hand and returns nil. It
// waits for a database or a broker that is away; it fails only with ErrMisconfigured.
func (s *Service) Run(ctx context.Context) error {
	pause := backoff.WithContext(backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(openFirst), backoff.WithMaxInterval(openMax),
		backoff.WithMaxElapsedTime(0)), ctx)
	var p *parts
	err := backoff.RetryNotify(func() (err error) {
		p, err = s.parts(ctx)
		if errors.Is(err, ErrMisconfigured) {
			return backoff.Permanent(err)
		}
		return err
	}, pause, func(err error, _ time.Duration) {
		s.Log.Warn().Err(err).Msg("waiting for the database")
	})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.refused(ctx); err != nil {
			stop(err)
		}
	})
	running.Go(func() { p.relay.Run(ctx) })
	running.Go(func() { p.consumer.Run(ctx) })
	if p.projector != nil {
		running.Go(func() { p.projector.Run(ctx) })
	}
	running.Wait()
	if err := context.Cause(ctx); errors.Is(err, ErrMisconfigured) {
		return err
	}
	return nil
}

// Open connects to the database and migrates it, unless that has been done. Replicas may do it at
// the same time. It is called by Run, Tx and Ready, and tries once.
func (s *Service) Open(ctx context.Context) error {
	_, err := s.parts(ctx)
	return err
}

// Close closes the connections to the database, when Run has returned and no transaction is under
// way. The service cannot be used afterwards.
func (s *Service) Close() error {
	if p := s.opened.Load(); p != nil {
		return p.close()
	}
	return nil
}

func (p *parts) close() error {
	if p.sessions != p.db {
		_ = p.sessions.Close()
	}
	return p.db.Close()
}

// parts opens the service once for all who ask at the same time. Each waits no longer than it wants
// to: a database that does not answer must not make a queue of those who need it.
func (s *Service) parts(ctx context.Context) (*parts, error) {
	if p := s.opened.Load(); p != nil {
		return p, nil
	}
	opening := s.opening.DoChan("", func() (any, error) {
		if p := s.opened.Load(); p != nil {
			return p, nil
		}
		p, err := s.open(context.WithoutCancel(ctx)) // it is not only for the first who asked
		if err == nil {
			s.opened.Store(p)
		}
		return p, err
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("open %s: %w", s.Name, ctx.Err())
	case result := <-opening:
		return result.Val.(*parts), result.Err
	}
}

func (s *Service) open(ctx context.Context) (*parts, error) {
	t, err := s.choreography()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMisconfigured, err)
	}
	db, sessions, address, err := s.connect()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMisconfigured, err)
	}
	p := &parts{db: db, sessions: sessions, inbox: inbox.New(db, s.Name), outbox: outbox.New(db)}
	if len(s.Projections) > 0 {
		p.projector = &eventstore.Projector{DB: db, Projections: s.Projections, Log: s.Log}
	}
	if err := s.prepare(ctx, p); err != nil {
		_ = p.close()
		if !postgres.WaitingHelps(err) {
			err = fmt.Errorf("%w: %w: %s", ErrMisconfigured, err, postgres.Remedy(err))
		}
		return nil, err
	}
	ready := func(session *rabbit.Session) error { return s.ready(session, t) }
	p.consumer = &consumer.Consumer{
		Name: s.Name, URL: s.AMQP, Topology: t, Handlers: s.Handlers, DB: db,
		Inbox: p.inbox, Outbox: p.outbox, Ready: ready, Log: s.Log, HandlerTimeout: s.HandlerTimeout,
	}
	for _, b := range s.Breakers {
		b.Probe = probe(db, b.Name)
	}
	var source outbox.Source
	if s.Stream != nil {
		source = s.Stream(db)
	}
	p.relay = &outbox.Relay{
		Outbox: p.outbox, URL: s.AMQP, Database: address, Name: s.Name,
		Exchange:  topology.ExchangeOf(s.Name),
		Mandatory: s.mandatory(t), Optional: s.optional(t),
		Ready: ready, Keep: s.Keep, Source: source, Log: s.Log,
	}
	return p, nil
}

// DB returns the pool of the service's database, for reading.
func (s *Service) DB(ctx context.Context) (*sqlx.DB, error) {
	p, err := s.parts(ctx)
	if err != nil {
		return nil, err
	}
	return p.db, nil
}

// Ready returns nil when the database answers and is migrated. The broker does not count: what is
// said waits in the outbox.
func (s *Service) Ready(ctx context.Context) error {
	p, err := s.parts(ctx)
	if err != nil {
		return err
	}
	return postgres.Alive(ctx, p.db)
}
