package faults_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// privateEnv returns an Env on a PostgreSQL server of its own.
func privateEnv(t *testing.T) (*outboxtest.Env, *localrun.Servers) {
	t.Helper()
	servers := servertest.PrivatePostgres(t)
	if err := pg.Migrate(t.Context(), servers.PostgresURL, "outbox",
		outbox.Migrations()); err != nil {
		t.Fatal(err)
	}
	return outboxtest.NewOn(t, servers.PostgresURL), servers
}

// burnTransactionIDs uses transaction ids of which no log record reaches the disk.
func burnTransactionIDs(s *outboxtest.Env, n int) (highest int64) {
	for range n {
		tx := s.Begin()
		if err := tx.Get(&highest, `SELECT pg_current_xact_id()::text::bigint`); err != nil {
			panic(err)
		}
		_ = tx.Rollback()
	}
	return highest
}

// awaitPoll waits until the relay has polled the database once more.
func awaitPoll(t *testing.T, s *outboxtest.Env) {
	t.Helper()
	var now time.Time
	if err := s.DB.Get(&now, `SELECT clock_timestamp()`); err != nil {
		t.Fatal(err)
	}
	s.WaitFor("the relay polls", func() bool {
		return s.Count(`SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_visible_in_snapshot%'
			AND pid <> pg_backend_pid() AND query_start > $1`, now) > 0
	})
}

// After a crash PostgreSQL assigns transaction ids again that the relay has seen in a snapshot. A
// relay that had moved its left edge beyond them, in memory only, would skip the rows that are
// written under them.
func TestReusedTransactionIDsAreNotSkipped(t *testing.T) {
	t.Parallel()
	s, servers := privateEnv(t)
	// On a slow machine the log records of these ids would reach the disk before the crash.
	for _, setting := range []string{`ALTER SYSTEM SET wal_writer_delay = '10s'`,
		`SELECT pg_reload_conf()`} {
		if _, err := s.DB.Exec(setting); err != nil {
			t.Fatal(err)
		}
	}
	s.Run(s.Relay(s.Out))
	reused := false
	for attempt := 1; !reused; attempt++ {
		if attempt > 5 {
			t.Fatal("no transaction id was reused in 5 crashes: the test proves nothing")
		}
		s.Await(s.Queue, s.AppendNotes("a", 2*attempt))
		// The relay must have seen these ids, and no later id may be in the log: it would put all earlier
		// ones out of use.
		var highest int64
		for later := true; later; {
			highest = burnTransactionIDs(s, 100)
			awaitPoll(t, s)
			later = s.Count(`SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`) > highest+1
		}
		if err := servers.KillPostgres(); err != nil {
			t.Fatal(err)
		}
		if err := servers.RestartPostgres(t.Context()); err != nil {
			t.Fatal(err)
		}
		ids := s.AppendNotes("a", 2*attempt+1)
		reused = s.Count(`SELECT txid::text::bigint FROM outbox WHERE id = $1`, ids[0]) <= highest
		s.Await(s.Queue, ids)
	}
}

// The server crashes while a writer and the relay are busy.
func TestNothingCommittedIsLostInACrash(t *testing.T) {
	t.Parallel()
	s, servers := privateEnv(t)
	r := s.Relay(s.Out)
	s.Run(r)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ctx.Err() == nil; n++ {
			_ = s.Out.Tx(ctx, func(tx *sqlx.Tx) error {
				return s.Out.Append(ctx, tx, outboxtest.Event(outboxtest.Note{On: outboxtest.Aggregate(n % 7),
					N: n}))
			})
		}
	}()
	for range 2 {
		published := r.Stats().Published
		s.WaitFor("the relay has published another 100 events",
			func() bool { return r.Stats().Published > published+100 })
		if err := servers.KillPostgres(); err != nil {
			t.Fatal(err)
		}
		if err := servers.RestartPostgres(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	<-done
	var committed []string
	if err := s.DB.Select(&committed, `SELECT id::text FROM outbox`); err != nil {
		t.Fatal(err)
	}
	s.Await(s.Queue, committed)
}

// A dump of one cluster is restored into another one.
func TestDumpRestoredElsewhereLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r := s.Relay(s.Out)
	r.Mandatory = outboxtest.IsOrphan
	stop := s.Run(r)
	held := outboxtest.Event(outboxtest.Orphan{On: "held"})
	s.Append(held)
	s.Await(s.Queue, s.AppendNotes("a", 1, 2, 3))
	s.WaitFor("the event is held", func() bool { return len(s.HeldIDs(`true`)) == 1 })
	s.WaitFor("all rows are settled", func() bool {
		return s.Count(`SELECT count(*) FROM outbox_cursor k, outbox
			WHERE NOT pg_visible_in_snapshot(outbox.txid, k.a)`) == 0
	})
	stop()
	want := append(s.AppendNotes("b", 1, 2), held.ID)

	servers := servertest.PrivatePostgres(t)
	restore(t, s.Database, servers.PostgresURL)
	there := s.WithDatabase(t, servers.PostgresURL)
	want = append(want, there.AppendNotes("c", 1)...) // before the cursor is rebased
	if err := outbox.Fit(t.Context(), there.DB); err != nil {
		t.Fatal(err)
	}
	want = append(want, there.AppendNotes("c", 2)...)
	s.Bind(s.Queue, "orphan.born")
	there.Run(there.Relay(there.Out))
	missing := map[string]bool{}
	for _, id := range want {
		missing[id] = true
	}
	for _, d := range there.Receive(s.Queue, len(want)) {
		if !missing[d.MessageId] {
			t.Errorf("%s was published again", d.Body)
		}
		delete(missing, d.MessageId)
	}
	there.ExpectNoMore(s.Queue)
	if len(missing) > 0 {
		t.Errorf("missing: %v", missing)
	}
}

// restore copies a database with pg_dump and psql, as an operator does.
func restore(t *testing.T, from, to string) {
	t.Helper()
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bins) == 0 {
		t.Fatalf("found no pg_dump in /usr/lib/postgresql: install Debian's PostgreSQL client (error %v)",
			err)
	}
	dump := exec.CommandContext(t.Context(), filepath.Join(bins[len(bins)-1], "pg_dump"), from)
	load := exec.CommandContext(t.Context(), filepath.Join(bins[len(bins)-1], "psql"), "-q", "-v",
		"ON_ERROR_STOP=1", "-o", os.DevNull, to)
	dump.Stderr, load.Stderr = os.Stderr, os.Stderr
	if load.Stdin, err = dump.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	if err := load.Run(); err != nil {
		t.Fatalf("psql: %v", err)
	}
	if err := dump.Wait(); err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
}
