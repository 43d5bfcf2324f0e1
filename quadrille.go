package quadrille

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/jmoiron/sqlx"
	"golang.org/x/sync/singleflight"

	"github.com/quadrille-go/quadrille/internal/engine"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/tally"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/topology"
)

// The pauses between attempts to open a database that is not there yet.
const (
	openFirst = 100 * time.Millisecond
	openMax   = 5 * time.Second
)

// Service publishes the events of its outbox, and handles those of other services. Make one with
// New. It must not be copied.
type Service struct {
	config Config
	role   role

	opening  singleflight.Group
	opened   atomic.Pointer[parts] // nil until the database could be reached and was migrated
	sessions atomic.Int32          // with the broker, past the check of the topology
	relayed  tally.Causes          // sessions of the relay that ended
}

// parts are what an open service is made of.
type parts struct {
	db       *sqlx.DB
	sessions *sqlx.DB // by LeaderDatabase; db where there is none
	outbox   *outbox.Outbox
	inbox    *inbox.Inbox
	consumer *engine.Engine
	relay    *outbox.Relay
	given    bool // the pool is the caller's
}

// Run relays and consumes until ctx is done, then finishes begun work and returns nil. It waits for
// a database or a broker that cannot be reached; it fails only with ErrMisconfigured.
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
		s.config.Log.Warn().Err(err).Msg("waiting for the database")
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
	for _, c := range s.config.Components {
		running.Go(func() { c.Run(ctx) })
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
	if p.given {
		return nil
	}
	return p.db.Close()
}

// parts opens the service once for all callers at the same time. Each waits no longer than its
// context allows: a database that does not answer must not delay callers beyond their time.
func (s *Service) parts(ctx context.Context) (*parts, error) {
	if p := s.opened.Load(); p != nil {
		return p, nil
	}
	opening := s.opening.DoChan("", func() (any, error) {
		if p := s.opened.Load(); p != nil {
			return p, nil
		}
		p, err := s.open(context.WithoutCancel(ctx)) // it is not only for the first caller
		if err == nil {
			s.opened.Store(p)
		}
		return p, err
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("open %s: %w", s.config.Name, ctx.Err())
	case result := <-opening:
		return result.Val.(*parts), result.Err
	}
}

func (s *Service) open(ctx context.Context) (*parts, error) {
	c := s.config
	db, sessions, address, err := c.connect()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMisconfigured, err)
	}
	p := &parts{db: db, sessions: sessions, inbox: inbox.New(db, c.Name), outbox: outbox.New(db),
		given: c.DB != nil}
	if err := c.prepare(ctx, p); err != nil {
		_ = p.close()
		if !pg.WaitingHelps(err) {
			err = fmt.Errorf("%w: %w: %s", ErrMisconfigured, err, pg.Remedy(err))
		}
		return nil, err
	}
	p.consumer = engine.New(engine.Config{
		Service: c.consumer(s.role.topology).Compile(), URL: c.AMQP, DB: db, Inbox: p.inbox,
		Outbox: p.outbox, Ready: s.ready, Tracer: c.Tracer, Log: c.Log,
	})
	var source outbox.Source
	if c.Stream != nil {
		source = c.Stream(db)
	}
	p.relay = &outbox.Relay{
		Outbox: p.outbox, URL: c.AMQP, Database: address, Name: c.Name,
		Exchange:  topology.ExchangeOf(c.Name),
		Mandatory: s.role.mandatory, Optional: s.role.optional,
		Ready: s.ready, Keep: c.OutboxKeep, Source: source, Tracer: c.Tracer, Log: c.Log,
		Ended: func(err error) { s.relayed.Add(rabbit.CauseOf(err)) },
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
// published waits in the outbox.
func (s *Service) Ready(ctx context.Context) error {
	p, err := s.parts(ctx)
	if err != nil {
		return err
	}
	return pg.Alive(ctx, p.db)
}
