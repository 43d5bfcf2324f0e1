package resilience

import (
	"context"
	"io/fs"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// Breakers are the circuit breakers of a service, as a component of it: while one is open, one
// replica at a time probes whether the peer has recovered, and the admin endpoint shows their
// states.
type Breakers []*Breaker

var (
	_ quadrille.Component     = Breakers{}
	_ quadrille.BreakerLister = Breakers{}
)

// Migrations returns none: breakers have no tables. Those of Limit are the function Migrations.
func (b Breakers) Migrations() map[string]fs.FS { return nil }

// Open lets the replicas share the probes through the database of the service.
func (b Breakers) Open(_ context.Context, h quadrille.Host) error {
	for _, breaker := range b {
		breaker.Probe = probe(h.DB, breaker.Name)
	}
	return nil
}

// Run returns at once: a breaker works when it is called.
func (b Breakers) Run(context.Context) {}

// BreakerStates returns the state of each breaker.
func (b Breakers) BreakerStates() []admin.Breaker {
	states := make([]admin.Breaker, len(b))
	for i, breaker := range b {
		states[i] = breaker.Stats()
	}
	return states
}

// probe lets one replica at a time make the call of a half-open breaker: the leader for it.
func probe(db *sqlx.DB, breaker string) func(ctx context.Context) (release func(), allowed bool) {
	leader := pg.Leader{DB: db, Name: "breaker " + breaker}
	return func(ctx context.Context) (func(), bool) {
		lead, err := leader.Try(ctx)
		if err != nil || lead == nil { // without the database there is nothing to call for
			return nil, false
		}
		_, stop := lead.Keep(ctx)
		return func() { stop(); lead.Release() }, true
	}
}
