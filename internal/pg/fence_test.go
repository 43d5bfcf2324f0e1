package pg_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

const (
	// writerDatabase is the name of a variable. If it is set, this test binary runs as a replica that
	// writes its token into the ledger of that database while it leads.
	writerDatabase = "QUADRILLE_TEST_WRITER_DATABASE"
	shortLease     = time.Second
)

// writeWhileLeading is the work of a replica: it writes without a pause while it leads.
func writeWhileLeading(ctx context.Context, db *sqlx.DB) {
	leader := pg.Leader{DB: db, Name: "ledger", Lease: shortLease}
	leader.Run(ctx, func(ctx context.Context, lead *pg.Lead) error {
		ctx = context.WithoutCancel(ctx) // only its writes tell it that it no longer leads
		for {
			err := lead.Tx(ctx, func(tx pg.Fenced) error {
				// A signal mostly arrives during this statement.
				if _, err := tx.Tx().ExecContext(ctx, `SELECT pg_sleep(0.005)`); err != nil {
					return err
				}
				_, err := tx.Tx().ExecContext(ctx, `INSERT INTO ledger (token, pid) VALUES ($1, $2)`,
					lead.Token, os.Getpid())
				return err
			})
			if err != nil {
				return err
			}
		}
	}, func(error) {})
}

// startReplica starts a replica as a process.
func startReplica(t *testing.T, url string) *os.Process {
	t.Helper()
	cmd := osexec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerDatabase+"="+url)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process
}

// latestWrite returns the token and the process of the last write.
func latestWrite(db *sqlx.DB) (last struct{ Token, PID int }) {
	_ = db.Get(&last, `SELECT token, pid FROM ledger ORDER BY seq DESC LIMIT 1`)
	return last
}

// After every fault a replica leads again, and no replica writes under a token that is older than
// one already written.
func TestOnlyTheLatestTokenWrites(t *testing.T) {
	t.Parallel()
	servers := servertest.PrivatePostgres(t)
	url := servers.PostgresURL
	must(t, pg.Migrate(t.Context(), url, "none", fstest.MapFS{}))
	db := pool(t, url)
	execUntilDone(t, db, `CREATE TABLE ledger (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		token bigint NOT NULL, pid int NOT NULL)`)
	replicas := map[int]*os.Process{}
	for range 2 {
		p := startReplica(t, url)
		replicas[p.Pid] = p
	}
	signal := func(s syscall.Signal) func(p *os.Process) {
		return func(p *os.Process) {
			must(t, p.Signal(s))
		}
	}
	stop, resume := signal(syscall.SIGSTOP), signal(syscall.SIGCONT)
	none := func(*os.Process) {}
	for _, fault := range []struct {
		name         string
		begin, after func(leader *os.Process)
	}{
		{"stopped for three leases", func(p *os.Process) {
			stop(p)
			endsWithin(t.Context(), t, 3*shortLease)
		}, resume},
		{"stopped until another leads", stop, resume},
		{"all sessions are terminated", func(*os.Process) {
			execUntilDone(t, db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`)
		}, none},
		{"the server restarts", func(*os.Process) { must(t, servers.RestartPostgres(t.Context())) },
			none},
		{"the server crashes", func(*os.Process) {
			must(t, servers.KillPostgres())
			// A new server does not start before the last child of the killed one has ended.
			waitFor(t, "the server starts",
				func() bool { return servers.RestartPostgres(t.Context()) == nil })
		}, none},
		{"killed", func(p *os.Process) {
			must(t, p.Kill())
			delete(replicas, p.Pid)
			successor := startReplica(t, url)
			replicas[successor.Pid] = successor
		}, none},
	} {
		before := latestWrite(db)
		waitFor(t, fault.name+": a replica leads",
			func() bool { before = latestWrite(db); return before.Token > 0 })
		leader := replicas[before.PID]
		fault.begin(leader)
		waitFor(t, fault.name+": a replica writes under a later token",
			func() bool { return latestWrite(db).Token > before.Token })
		fault.after(leader)
		n := count(t, db, `SELECT count(*) FROM ledger`)
		waitFor(t, fault.name+": the writes continue", func() bool {
			return count(t, db, `SELECT count(*)
			FROM ledger`) > n+20
		})
		if n := count(t, db, `SELECT count(*) FROM (SELECT token < lag(token) OVER (ORDER BY seq) AS late
			FROM ledger) w WHERE late`); n > 0 {
			t.Fatalf("%s: %d writes under an older token than the write before", fault.name, n)
		}
	}
}

// execUntilDone runs a statement again until it succeeds, since the server may be restarting.
func execUntilDone(t *testing.T, db *sqlx.DB, query string) {
	t.Helper()
	waitFor(t, query, func() bool { _, err := db.ExecContext(t.Context(), query); return err == nil })
}

// A write under a token that is not the latest returns ErrSuperseded and leaves nothing behind.
func TestSupersededLeaderWritesNothing(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	exec(t, db, `CREATE TABLE effects (n int)`)
	l := tryLead(t, db, "a")
	t.Cleanup(l.Release)
	effect := func() error {
		return l.Tx(t.Context(), func(tx pg.Fenced) error {
			_, err := tx.Tx().Exec(`INSERT INTO effects VALUES (1)`)
			return err
		})
	}
	must(t, effect())
	exec(t, db, `UPDATE leaders SET token = token + 1 WHERE name = 'a'`)
	if err := effect(); !errors.Is(err, pg.ErrSuperseded) {
		t.Errorf("error %v", err)
	}
	if n := count(t, db, `SELECT count(*) FROM effects`); n != 1 {
		t.Errorf("%d effects", n)
	}
	failed := fmt.Errorf("not today")
	if err := l.Tx(t.Context(), func(pg.Fenced) error { return failed }); !errors.Is(err,
		failed) {
		t.Errorf("error %v", err)
	}
}

// No replica takes the lead between the check of the token and the commit.
func TestNoReplicaTakesTheLeadDuringACommit(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	exec(t, db, `CREATE TABLE effects (n int)`)
	exec(t, db, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_xact_lock(17); RETURN NULL; END'`)
	exec(t, db, `CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION slow()`)
	l := tryLead(t, db, "a")
	t.Cleanup(l.Release)
	gate, err := db.Beginx()
	must(t, err)
	_, err = gate.Exec(`SELECT pg_advisory_xact_lock(17)`)
	must(t, err)
	written := make(chan error)
	go func() {
		written <- l.Tx(t.Context(), func(tx pg.Fenced) error {
			_, err := tx.Tx().Exec(`INSERT INTO effects VALUES (1)`)
			return err
		})
	}()
	waitFor(t, "the leader is committing", func() bool {
		return count(t, db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND query = 'COMMIT' AND wait_event_type = 'Lock'`) == 1
	})
	if _, err := db.Exec(`SET lock_timeout = '50ms'; UPDATE leaders SET token = token + 1
		WHERE name = 'a'`); err == nil {
		t.Error("the token was raised while the leader was committing")
	}
	must(t, gate.Rollback())
	must(t, <-written)
}

// A leader that is stopped between the lock of its token and the commit keeps that lock. Its
// successor waits for the lease only, and not for the longer time that other transactions may be
// idle.
func TestLeaderStoppedInItsTransactionIsSucceeded(t *testing.T) {
	t.Parallel()
	url, db := newDatabase(t)
	exec(t, db, `CREATE TABLE effects (n int)`)
	l, err := pg.Leader{DB: db, Name: "a", Lease: shortLease}.Try(t.Context())
	must(t, err)
	t.Cleanup(l.Release)
	otherPool := pool(t, url)
	var successor *pg.Lead
	err = l.Tx(t.Context(), func(tx pg.Fenced) error {
		_, err := tx.Tx().Exec(`INSERT INTO effects VALUES (1)`)
		must(t, err)
		_, err = tx.Tx().Exec(`SELECT FROM leaders WHERE name = 'a' FOR SHARE`) // as at the end of Tx
		must(t, err)
		waitFor(t, "another replica leads", func() bool {
			successor = tryLead(t, otherPool, "a")
			return successor != nil
		})
		return nil
	})
	if err == nil {
		t.Error("the stopped leader has committed")
	}
	defer successor.Release()
	if n := count(t, otherPool, `SELECT count(*) FROM effects`); n != 0 {
		t.Errorf("%d effects of the stopped leader", n)
	}
}

// The tokens of one name only rise, and each name has tokens of its own.
func TestTokensRise(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	for want := int64(1); want <= 3; want++ {
		var l *pg.Lead
		waitFor(t, "the lead is free", func() bool { l = tryLead(t, db, "a"); return l != nil })
		if l.Token != want {
			t.Errorf("token %d, want %d", l.Token, want)
		}
		l.Release()
	}
	other := tryLead(t, db, "b")
	defer other.Release()
	if other.Token != 1 {
		t.Errorf("token %d of another name", other.Token)
	}
}
