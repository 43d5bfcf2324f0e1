package postgres

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// Leader names a task that only one of the replicas may do at a time: all of them use the same
// Name. It may be copied. Its database needs the table of the leaders, which Migrate creates.
type Leader struct {
	DB   *sqlx.DB // a pool of Open
	Name string
	// Lease is how long the session of a leader may be silent before another replica may lead.
	// 0: 10 seconds.
	Lease time.Duration
}

// Lead is the leadership for one name. A process that was stopped does not know that its lead has
// ended when it continues, and therefore writes in Tx, which checks its token.
type Lead struct{ lead *pg.Lead }

// Run calls work whenever this replica leads, until ctx is done. The context of work ends when the
// replica loses the lead. The other replicas try to take the lead every 250 ms. Run passes each
// error to onError, which may wait before it returns, and then tries again.
func (l Leader) Run(ctx context.Context, work func(ctx context.Context, lead Lead) error,
	onError func(error)) {
	leader := pg.Leader{DB: l.DB, Name: l.Name, Lease: l.Lease}
	leader.Run(ctx, func(ctx context.Context, lead *pg.Lead) error {
		return work(ctx, Lead{lead})
	}, onError)
}

// Token is the fencing token of this lead. Each new leader has a larger one, so that another
// system can refuse a request of a former leader.
func (l Lead) Token() int64 { return l.lead.Token }

// Tx runs f in a transaction that commits only if this replica still leads, and otherwise returns
// ErrSuperseded. No other replica can take the lead between that check and the commit. Tx is safe
// for concurrent use. The other errors are those of InTx.
func (l Lead) Tx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	return l.lead.Tx(ctx, func(tx pg.Fenced) error { return f(tx.Tx()) })
}
