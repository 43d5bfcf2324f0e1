package quadrille

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/postgres"
)

// probe lets one replica at a time ask whether the peer of a breaker is back: the leader for it.
func probe(db *sqlx.DB, breaker string) func(ctx context.Context) (leave func(), may bool) {
	leader := postgres.Leader{DB: db, Name: "breaker " + breaker}
	return func(ctx context.Context) (func(), bool) {
		lead, err := leader.Try(ctx)
		if err != nil || lead == nil { // without the database there is nothing to call for
			return nil, false
		}
		_, stop := lead.Keep(ctx)
		return func() { stop(); lead.Release() }, true
	}
}
