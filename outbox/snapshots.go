package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// The bounds of watching for what keeps PostgreSQL from clearing away old versions of rows.
const (
	snapshotInterval    = 10 * time.Second
	oldSnapshotAge      = 5 * time.Minute  // a transaction that is said
	snapshotLogInterval = 10 * time.Minute // between two log lines
	cursorBloat         = 1 << 20          // bytes of a table with one row
)

// OldSnapshot is the oldest transaction of the database that keeps PostgreSQL from clearing away
// old versions of rows. The rows that the relay and others write all the time then grow slower and
// slower.
type OldSnapshot struct {
	PID         int     `db:"pid" json:"pid"`
	Role        string  `db:"role" json:"role"`
	Application string  `db:"application" json:"application"`
	Seconds     float64 `db:"seconds" json:"seconds"`
}

// OldSnapshot returns the oldest that is older than five minutes, or nil. Sessions of other roles
// are seen only by a role with pg_read_all_stats.
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
		return nil, wrap("look for old snapshots", err)
	}
	return &found[0], nil
}

// watchSnapshots looks from time to time for a transaction that keeps old versions of rows, until
// ctx is done.
func (r *Relay) watchSnapshots(ctx context.Context) {
	defer r.oldestSec.Store(0)
	tick := time.NewTicker(snapshotInterval)
	defer tick.Stop()
	var reported time.Time
	for {
		published, err := r.watchSnapshot(ctx, oldSnapshotAge, time.Since(reported) > snapshotLogInterval)
		if err != nil && ctx.Err() == nil {
			r.Log.Debug().Err(err).Msg("old snapshots are not looked for, trying again")
		}
		if published {
			reported = time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *Relay) watchSnapshot(ctx context.Context, age time.Duration, tell bool) (published bool,
	err error) {
	old, err := oldSnapshot(ctx, r.Outbox.db, age)
	if err != nil {
		return false, err
	}
	const consequence = "PostgreSQL cannot clear away old versions of rows, so that the tables " +
		"which the relay and others write all the time " +
		"grow and get slow: end it, or give such readers a replica or a time-out"
	if old != nil {
		r.oldestSec.Store(int64(old.Seconds))
		if tell {
			r.Log.Warn().Int("pid", old.PID).Str("role", old.Role).Str("application", old.Application).
				Str("age", (time.Duration(old.Seconds) * time.Second).String()).Msg(
				"a transaction has been open for long: " + consequence)
		}
		return tell, nil
	}
	r.oldestSec.Store(0)
	var bytes int64
	if err := r.Outbox.db.GetContext(ctx, &bytes,
		`SELECT pg_relation_size('outbox_cursor')`); err != nil {
		return false, fmt.Errorf("read the size of outbox_cursor: %w", err)
	}
	if bytes > cursorBloat && tell {
		r.Log.Warn().Int64("bytes", bytes).Msg("outbox_cursor has one row and is large: vacuum does " +
			"not get at it, or a transaction " +
			"of a role that this one cannot see was open for long. While one is, " + consequence)
	}
	return bytes > cursorBloat && tell, nil
}
