package outbox_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// oldSnapshot opens a transaction that keeps PostgreSQL from removing old versions of rows.
func oldSnapshot(t *testing.T, s *outboxtest.Env) (pid int) {
	t.Helper()
	tx := s.Begin()
	if _, err := tx.Exec(`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`); err != nil {
		t.Fatal(err)
	}
	if err := tx.Get(&pid, `SELECT pg_backend_pid() FROM outbox_cursor`); err != nil {
		t.Fatal(err)
	}
	return pid
}

// A save of the cursor costs the same after thousands of saves under an old snapshot.
func TestCursorIsSavedCheaplyUnderAnOldSnapshot(t *testing.T) {
	t.Parallel()
	s := outboxtest.NewWithoutBroker(t)
	lead, err := outbox.Leader(s.DB).Try(t.Context())
	if err != nil || lead == nil {
		t.Fatalf("lead %v, %v", lead, err)
	}
	t.Cleanup(lead.Release)
	// The relay sets this in each term.
	if _, err := lead.Conn().ExecContext(t.Context(), `SET synchronous_commit = off`); err != nil {
		t.Fatal(err)
	}
	oldSnapshot(t, s)
	save, err := outbox.Saver(t.Context(), lead)
	if err != nil {
		t.Fatal(err)
	}
	saveTimes := func(n int) {
		for range n {
			if err := save(); err != nil {
				t.Fatal(err)
			}
		}
	}
	blocks := func() int64 {
		if _, err := lead.Conn().ExecContext(t.Context(),
			`SELECT pg_stat_force_next_flush()`); err != nil {
			t.Fatal(err)
		}
		return s.Count(`SELECT coalesce(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read, 0)
			FROM pg_statio_user_tables WHERE relname = 'outbox_cursor'`)
	}
	saveTimes(5000)
	before, began := blocks(), time.Now()
	saveTimes(10)
	took := time.Since(began) / 10
	pages, touched := s.Count(`SELECT pg_relation_size('outbox_cursor') / 8192`), (blocks()-before)/10
	t.Logf("each save took %s and touched %d buffers; the table has %d pages", took, touched, pages)
	if pages < 30 || touched == 0 || touched > 20 {
		t.Errorf("each save touched %d buffers, want 1 to 20; the table has %d pages, want at least 30",
			touched, pages)
	}
}

// The leader logs the transaction with an old snapshot, and its age.
func TestOldSnapshotIsReported(t *testing.T) {
	t.Parallel()
	s := outboxtest.NewWithoutBroker(t)
	pid := oldSnapshot(t, s)
	r := s.Relay(s.Out)
	var log logged
	r.Log = zerolog.New(&log)
	if err := r.WatchSnapshot(t.Context(), time.Hour); err != nil || r.Stats().OldestSec != 0 ||
		log.has("warn") {
		t.Errorf("a young transaction is reported: error %v, stats %+v", err, r.Stats())
	}
	s.WaitFor("the transaction is logged", func() bool {
		if err := r.WatchSnapshot(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		return r.Stats().OldestSec > 0 && log.has(`"warn"`, fmt.Sprintf(`"pid":%d`, pid), `"age":"`)
	})
}
