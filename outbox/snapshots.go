package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// The bounds of the watch for old transactions.
const (
	snapshotInterval    = 10 * time.Second
	oldSnapshotAge      = 5 * time.Minute  // from this age on a transaction is reported
	snapshotLogInterval = 10 * time.Minute // between two log lines
	cursorBloat         = 1 << 20          // bytes of outbox_cursor, which has one row
)

// OldSnapshot is a transaction that prevents PostgreSQL from removing old versions of rows. While
// it is open, every update of the outbox cursor, and of any other row that is often written, leaves
// a version that later reads must pass.
type OldSnapshot struct {
	PID         int     `db:"pid" json:"pid"`
	Role        string  `db:"role" json:"role"`
	Application string  `db:"application" json:"application"`
	Seconds     float64 `db:"seconds" json:"seconds"`
}

// OldSnapshot returns the oldest such transaction of the database, or nil if none is older than
// five minutes. It sees sessions of other roles only if its own role has pg_read_all_stats.
func (o *Outbox) OldSnapshot(ctx context.Context) (*OldSnapshot, error) {
	return oldSnapshot(ctx, o.db, oldSnapshotAge)
}

func oldSnapshot(ctx context.Context, q sqlx.QueryerContext, age time.Duration) (*OldSnapshot,
	error) {
	var found []OldSnapshot
	err := sqlx.SelectContext(ctx, q, &found, `SELECT pid, coalesce(usename, '') AS role,
		coalesce(application_name, '') AS application,
			extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
		FROM pg_stat_activity WHERE datname = current_database() AND (backend_xmin IS NOT NULL
			OR backend_xid IS NOT NULL)
			AND xact_start < clock_timestamp() - $1 * interval '1 second' ORDER BY xact_start LIMIT 1`,
		age.Seconds())
	if err != nil || len(found) == 0 {
		return nil, wrap("find old transactions", err)
	}
	return &found[0], nil
}

// watchSnapshots calls watchSnapshot once in snapshotInterval until ctx is done.
func (r *Relay) watchSnapshots(ctx context.Context) {
	defer r.oldestSec.Store(0)
	tick := time.NewTicker(snapshotInterval)
	defer tick.Stop()
	var loggedAt time.Time
	for {
		logged, err := r.watchSnapshot(ctx, oldSnapshotAge, time.Since(loggedAt) > snapshotLogInterval)
		if err != nil && ctx.Err() == nil {
			r.Log.Debug().Err(err).Msg("the search for old transactions failed, the relay tries again")
		}
		if logged {
			loggedAt = time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// watchSnapshot looks for a transaction that is older than age, and measures the bloat that one has
// left behind. With mayLog set, it logs what it finds and reports that it has.
func (r *Relay) watchSnapshot(ctx context.Context, age time.Duration, mayLog bool) (logged bool,
	err error) {
	old, err := oldSnapshot(ctx, r.Outbox.db, age)
	if err != nil {
		return false, err
	}
	const consequence = "PostgreSQL cannot remove old versions of rows, and tables that are written " +
		"often grow and get slow: end the transaction, or give such readers a replica or a timeout"
	if old != nil {
		r.oldestSec.Store(int64(old.Seconds))
		if mayLog {
			r.Log.Warn().Int("pid", old.PID).Str("role", old.Role).Str("application", old.Application).
				Str("age", (time.Duration(old.Seconds) * time.Second).String()).Msg(
				"a transaction has been open for too long: " + consequence)
		}
		return mayLog, nil
	}
	r.oldestSec.Store(0)
	var bytes int64
	if err := r.Outbox.db.GetContext(ctx, &bytes,
		`SELECT pg_relation_size('outbox_cursor')`); err != nil {
		return false, fmt.Errorf("read the size of outbox_cursor: %w", err)
	}
	if bytes > cursorBloat && mayLog {
		r.Log.Warn().Int64("bytes", bytes).Msg("the table outbox_cursor has one row but is large: " +
			"autovacuum does not process it, or a transaction of another role was open for too long, " +
			"which this role cannot see. While such a transaction is open, " + consequence)
	}
	return bytes > cursorBloat && mayLog, nil
}
