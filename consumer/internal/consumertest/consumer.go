package consumertest

import (
	"context"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/internal/engine"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/tracing"
	"github.com/quadrille-go/quadrille/outbox"
)

// Consumer is a consumer with the engine that runs it. Its fields may be changed until a method is
// called.
type Consumer struct {
	consumer.Consumer
	URL    string
	DB     *sqlx.DB
	Outbox *outbox.Outbox
	Ready  func(*rabbit.Session) error
	Tracer *tracing.Tracer
	Log    zerolog.Logger
	// RenewIdle is how long a session may be without a delivery; 0: the engine's own bound.
	RenewIdle time.Duration

	once   sync.Once
	engine *engine.Engine
}

// Engine returns the engine, which is the same each time.
func (c *Consumer) Engine() *engine.Engine {
	c.once.Do(func() {
		c.engine = engine.New(engine.Config{Service: c.Compile(), URL: c.URL, DB: c.DB,
			Inbox: inbox.New(c.DB, c.Name), Outbox: c.Outbox, Ready: c.Ready,
			Tracer: c.Tracer, Log: c.Log, RenewIdle: c.RenewIdle})
	})
	return c.engine
}

// Run consumes until ctx is done.
func (c *Consumer) Run(ctx context.Context) { c.Engine().Run(ctx) }

// Tx runs f in a transaction.
func (c *Consumer) Tx(ctx context.Context, f func(ctx context.Context, tx *sqlx.Tx) error) error {
	return c.Engine().Tx(ctx, f)
}

// Execute writes effects in tx.
func (c *Consumer) Execute(ctx context.Context, tx *sqlx.Tx, e consumer.Effects) error {
	return consumer.Execute(ctx, c.Engine(), tx, e)
}

// DryRun handles something that pends, and rolls everything back.
func (c *Consumer) DryRun(ctx context.Context, p inbox.Pending) (engine.Effects, error) {
	return c.Engine().DryRun(ctx, p)
}

// Stats returns the counters.
func (c *Consumer) Stats() consumer.Stats { return consumer.Stats(c.Engine().Stats()) }

// Healthy returns why nothing is consumed.
func (c *Consumer) Healthy() error { return c.Engine().Healthy() }

// SessionEnds counts the sessions that ended, by cause.
func (c *Consumer) SessionEnds() map[string]int64 { return c.Engine().SessionEnds() }
