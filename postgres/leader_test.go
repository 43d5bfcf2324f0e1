package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/postgres"
)

func lead(t *testing.T, db *sqlx.DB, key string) *postgres.Lead {
	t.Helper()
	l, err := postgres.Leader{DB: db, Name: key}.Try(t.Context())
	must(t, err)
	return l
}

func TestOneLeads(t *testing.T) {
	t.Parallel()
	_, db := fresh(t)
	first := lead(t, db, "a")
	if first == nil || lead(t, db, "a") != nil {
		t.Fatal("nobody leads, or two do")
	}
	other := lead(t, db, "b")
	if other == nil {
		t.Fatal("another purpose has no leader")
	}
	other.Release()
	first.Release()
	until(t, "the lead is free", func() bool {
		next := lead(t, db, "a")
		if next != nil {
			next.Release()
		}
		return next != nil
	})
	// Nobody waits for a release, and how far each has come is open.
	until(t, "no connection and no lock is left", func() bool {
		return db.Stats().InUse == 0 && count(t, db, `SELECT count(*) FROM pg_locks
			WHERE locktype = 'advisory'
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 0
	})
}

func ended(ctx context.Context, t *testing.T, d time.Duration) bool {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return true
	case <-timer.C:
		return false
	}
}

// The lead bounds the session that has it, and no session that has asked in vain.
func TestOnlyTheLeadersSessionIsBounded(t *testing.T) {
	t.Parallel()
	url, db := fresh(t)
	l := lead(t, db, "a")
	t.Cleanup(l.Release)
	others := pool(t, url)
	others.SetMaxOpenConns(1)
	if lead(t, others, "a") != nil {
		t.Fatal("two lead")
	}
	for db, want := range map[sqlx.QueryerContext]string{l.Conn(): "10s 10s 10s", others: "0 30s 0"} {
		var got string
		must(t, sqlx.GetContext(t.Context(), db, &got, `SELECT current_setting('idle_session_timeout')
			|| ' ' ||
			current_setting('idle_in_transaction_session_timeout') || ' ' || (SELECT CASE setting
				WHEN '0' THEN '0' ELSE setting::int / 1000 || 's' END
			FROM pg_settings WHERE name = 'tcp_user_timeout')`))
		if got != want {
			t.Errorf("bounds %q, want %q", got, want)
		}
	}
}

func TestLostSessionIsNoticed(t *testing.T) {
	t.Parallel()
	_, db := fresh(t)
	l := lead(t, db, "a")
	kept, stop := l.Keep(t.Context())
	exec(t, db, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	if !ended(kept, t, patience) {
		t.Error("the leader does not know that its session is gone")
	}
	stop()
	l.Release()
}

// A sign of life that meets an answer being read is no loss.
func TestLongAnswerDoesNotCostTheLead(t *testing.T) {
	t.Parallel()
	_, db := fresh(t)
	l := lead(t, db, "a")
	kept, stop := l.Keep(t.Context())
	rows, err := l.Conn().QueryContext(kept, `SELECT repeat('x', 100) FROM generate_series(1, 200000)`)
	must(t, err)
	rows.Next()
	if ended(kept, t, 2500*time.Millisecond) { // one sign of life
		t.Error("the lead was given up while an answer was read")
	}
	must(t, rows.Close())
	if n := count(t, l.Conn(), `SELECT 1`); n != 1 {
		t.Error("the session is broken")
	}
	stop()
	l.Release()
}

// A leader whose line has gone silent knows within three leases that it leads no more, though the
// driver waits for an answer. A line that is only busy costs nothing.
func TestSilentConnectionCostsTheLead(t *testing.T) {
	t.Parallel()
	url, db := fresh(t)
	silent, mute := muted(t, url)
	l, err := postgres.Leader{DB: pool(t, silent), Name: "a", Lease: shortLease}.Try(t.Context())
	must(t, err)
	busy, err := postgres.Leader{DB: db, Name: "b", Lease: shortLease}.Try(t.Context())
	must(t, err)
	t.Cleanup(busy.Release)
	kept, stop := l.Keep(t.Context())
	keptBusy, stopBusy := busy.Keep(t.Context())
	unmute := mute()
	_, err = busy.Conn().ExecContext(t.Context(), `SELECT pg_sleep($1)`, (3 * shortLease).Seconds())
	must(t, err)
	if !ended(kept, t, patience) {
		t.Error("the leader does not know that its line is silent")
	}
	if keptBusy.Err() != nil {
		t.Error("the lead was given up at a long statement")
	}
	unmute()
	stop()
	stopBusy()
	l.Release()
}
