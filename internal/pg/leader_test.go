package pg_test

import (
	"context"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

func tryLead(t *testing.T, db *sqlx.DB, key string) *pg.Lead {
	t.Helper()
	l, err := pg.Leader{DB: db, Name: key}.Try(t.Context())
	must(t, err)
	return l
}

func TestOneReplicaLeads(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	first := tryLead(t, db, "a")
	if first == nil || tryLead(t, db, "a") != nil {
		t.Fatal("no replica leads, or two do")
	}
	other := tryLead(t, db, "b")
	if other == nil {
		t.Fatal("a second name has no leader")
	}
	other.Release()
	first.Release()
	waitFor(t, "the lead is free", func() bool {
		next := tryLead(t, db, "a")
		if next != nil {
			next.Release()
		}
		return next != nil
	})
	// Release does not wait until the server has ended the session.
	waitFor(t, "no connection and no lock is left", func() bool {
		return db.Stats().InUse == 0 && count(t, db, `SELECT count(*) FROM pg_locks
			WHERE locktype = 'advisory'
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 0
	})
}

func endsWithin(ctx context.Context, t *testing.T, d time.Duration) bool {
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

// The bounds of a leader apply to its own session, and not to one that did not get the lock.
func TestOnlyTheLeadersSessionIsBounded(t *testing.T) {
	t.Parallel()
	url, db := newDatabase(t)
	l := tryLead(t, db, "a")
	t.Cleanup(l.Release)
	otherPool := pool(t, url)
	otherPool.SetMaxOpenConns(1)
	if tryLead(t, otherPool, "a") != nil {
		t.Fatal("two replicas lead")
	}
	for db, want := range map[sqlx.QueryerContext]string{l.Conn(): "10s 10s 10s",
		otherPool: "0 30s 0"} {
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
	_, db := newDatabase(t)
	l := tryLead(t, db, "a")
	kept, stop := l.Keep(t.Context())
	exec(t, db, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	if !endsWithin(kept, t, waitTimeout) {
		t.Error("the leader has not noticed that its session is gone")
	}
	stop()
	l.Release()
}

// A heartbeat that fails because an answer is being read does not cost the lead.
func TestLongAnswerDoesNotCostTheLead(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	l := tryLead(t, db, "a")
	kept, stop := l.Keep(t.Context())
	rows, err := l.Conn().QueryContext(kept, `SELECT repeat('x', 100) FROM generate_series(1, 200000)`)
	must(t, err)
	rows.Next()
	if endsWithin(kept, t, 2500*time.Millisecond) { // one heartbeat
		t.Error("the lead was given up while an answer was being read")
	}
	must(t, rows.Close())
	if n := count(t, l.Conn(), `SELECT 1`); n != 1 {
		t.Error("the session is broken")
	}
	stop()
	l.Release()
}

// A leader whose connection has become silent gives up the lead within about three leases, although
// the driver still waits for an answer. A connection that is only busy does not cost the lead.
func TestSilentConnectionCostsTheLead(t *testing.T) {
	t.Parallel()
	url, db := newDatabase(t)
	silent, silence := silentProxy(t, url)
	l, err := pg.Leader{DB: pool(t, silent), Name: "a", Lease: shortLease}.Try(t.Context())
	must(t, err)
	busy, err := pg.Leader{DB: db, Name: "b", Lease: shortLease}.Try(t.Context())
	must(t, err)
	t.Cleanup(busy.Release)
	kept, stop := l.Keep(t.Context())
	keptBusy, stopBusy := busy.Keep(t.Context())
	cut := silence()
	_, err = busy.Conn().ExecContext(t.Context(), `SELECT pg_sleep($1)`, (3 * shortLease).Seconds())
	must(t, err)
	if !endsWithin(kept, t, waitTimeout) {
		t.Error("the leader has not noticed that its connection is silent")
	}
	if keptBusy.Err() != nil {
		t.Error("the lead was given up during a long statement")
	}
	cut()
	stop()
	stopBusy()
	l.Release()
}
