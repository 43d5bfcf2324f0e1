package postgres_test

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

	"github.com/quadrille-go/quadrille/internal/devstack"
	"github.com/quadrille-go/quadrille/postgres"
)

const (
	// writerDatabase makes this test binary a replica that writes its token into the ledger of that
	// database for as long as it leads.
	writerDatabase = "QUADRILLE_TEST_WRITER_DATABASE"
	shortLease     = time.Second
)

// write is what a replica does: it writes without a pause while it leads.
func write(ctx context.Context, db *sqlx.DB) {
	leader := postgres.Leader{DB: db, Name: "ledger", Lease: shortLease}
	leader.Run(ctx, func(ctx context.Context, lead *postgres.Lead) error {
		ctx = context.WithoutCancel(ctx) // it learns that it leads no more from its writes alone
		for {
			err := lead.Tx(ctx, func(tx postgres.Fenced) error {
				// it is mostly stopped here
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

// replica starts a replica as a process.
func replica(t *testing.T, url string) *os.Process {
	t.Helper()
	cmd := osexec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerDatabase+"="+url)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process
}

// latest returns the highest token that has written, and whose it is.
func latest(db *sqlx.DB) (last struct{ Token, PID int }) {
	_ = db.Get(&last, `SELECT token, pid FROM ledger ORDER BY seq DESC LIMIT 1`)
	return last
}

// Whatever happens to leaders, somebody leads again, and once somebody has written under a token
// nobody writes under an older one.
func TestOnlyTheLatestTokenWrites(t *testing.T) {
	t.Parallel()
	servers := devstack.PrivatePostgres(t)
	url := servers.PostgresURL
	must(t, postgres.Migrate(t.Context(), url, "none", fstest.MapFS{}))
	db := pool(t, url)
	exec1(t, db, `CREATE TABLE ledger (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		token bigint NOT NULL, pid int NOT NULL)`)
	replicas := map[int]*os.Process{}
	for range 2 {
		p := replica(t, url)
		replicas[p.Pid] = p
	}
	signal := func(s syscall.Signal) func(p *os.Process) {
		return func(p *os.Process) {
			must(t,
				p.Signal(s))
		}
	}
	stop, wake := signal(syscall.SIGSTOP), signal(syscall.SIGCONT)
	none := func(*os.Process) {}
	for _, problem := range []struct {
		name         string
		begin, after func(leader *os.Process)
	}{
		{"stopped for three lease times", func(p *os.Process) {
			stop(p)
			ended(t.Context(), t, 3*shortLease)
		}, wake},
		{"stopped until another leads", stop, wake},
		{"cut off", func(*os.Process) {
			exec1(t, db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`)
		}, none},
		{"the server restarts", func(*os.Process) { must(t, servers.RestartPostgres(t.Context())) },
			none},
		{"the server crashes", func(*os.Process) {
			must(t, servers.KillPostgres())
			// Until the last child of the server that was killed has ended, another one does not start.
			until(t, "it starts again", func() bool { return servers.RestartPostgres(t.Context()) == nil })
		}, none},
		{"killed", func(p *os.Process) {
			must(t, p.Kill())
			delete(replicas, p.Pid)
			successor := replica(t, url)
			replicas[successor.Pid] = successor
		}, none},
	} {
		before := latest(db)
		until(t, problem.name+": somebody leads",
			func() bool { before = latest(db); return before.Token > 0 })
		leader := replicas[before.PID]
		problem.begin(leader)
		until(t, problem.name+": a later token writes",
			func() bool { return latest(db).Token > before.Token })
		problem.after(leader)
		n := count(t, db, `SELECT count(*) FROM ledger`)
		until(t, problem.name+": it goes on", func() bool {
			return count(t, db, `SELECT count(*)
			FROM ledger`) > n+20
		})
		if n := count(t, db, `SELECT count(*) FROM (SELECT token < lag(token) OVER (ORDER BY seq) AS late
			FROM ledger) w WHERE late`); n > 0 {
			t.Fatalf("%s: %d times an older token wrote after a later one", problem.name, n)
		}
	}
}

// exec1 is exec once more while the server comes back.
func exec1(t *testing.T, db *sqlx.DB, query string) {
	t.Helper()
	until(t, query, func() bool { _, err := db.ExecContext(t.Context(), query); return err == nil })
}

// A write under a token that is not the latest fails loudly and leaves nothing.
func TestSupersededLeaderWritesNothing(t *testing.T) {
	t.Parallel()
	_, db := fresh(t)
	exec(t, db, `CREATE TABLE effects (n int)`)
	l := lead(t, db, "a")
	t.Cleanup(l.Release)
	effect := func() error {
		return l.Tx(t.Context(), func(tx postgres.Fenced) error {
			_, err := tx.Tx().Exec(`INSERT INTO effects VALUES (1)`)
			return err
		})
	}
	must(t, effect())
	exec(t, db, `UPDATE leaders SET token = token + 1 WHERE name = 'a'`)
	if err := effect(); !errors.Is(err, postgres.ErrSuperseded) {
		t.Errorf("error %v", err)
	}
	if n := count(t, db, `SELECT count(*) FROM effects`); n != 1 {
		t.Errorf("%d effects", n)
	}
	failed := fmt.Errorf("not today")
	if err := l.Tx(t.Context(), func(postgres.Fenced) error { return failed }); !errors.Is(err,
		failed) {
		t.Errorf("error %v", err)
	}
}

// Between the check of the token and the commit there is no successor.
func TestNobodyTakesTheLeadDuringACommit(t *testing.T) {
	t.Parallel()
	_, db := fresh(t)
	exec(t, db, `CREATE TABLE effects (n int)`)
	exec(t, db, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_xact_lock(17); RETURN NULL; END'`)
	exec(t, db, `CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION slow()`)
	l := lead(t, db, "a")
	t.Cleanup(l.Release)
	gate, err := db.Beginx()
	must(t, err)
	_, err = gate.Exec(`SELECT pg_advisory_xact_lock(17)`)
	must(t, err)
	written := make(chan error)
	go func() {
		written <- l.Tx(t.Context(), func(tx postgres.Fenced) error {
			_, err := tx.Tx().Exec(`INSERT INTO effects VALUES (1)`)
			return err
		})
	}()
	until(t, "it is committing", func() bool {
		return count(t, db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND query = 'COMMIT' AND wait_event_type = 'Lock'`) == 1
	})
	if _, err := db.Exec(`SET lock_timeout = '50ms'; UPDATE leaders SET token = token + 1
		WHERE name = 'a'`); err == nil {
		t.Error("the token was raised while its holder was committing")
	}
	must(t, gate.Rollback())
	must(t, <-written)
}

// A leader that is stopped between the lock on its token and the commit keeps that lock; its
// successor waits for no longer than the lease, not for as long as any other transaction may be
// idle.
func TestLeaderStoppedInItsTransactionIsSucceeded(t *testing.T) {
	t.Parallel()
	url, db := fresh(t)
	exec(t, db, `CREATE TABLE effects (n int)`)
	l, err := postgres.Leader{DB: db, Name: "a", Lease: shortLease}.Try(t.Context())
	must(t, err)
	t.Cleanup(l.Release)
	others := pool(t, url)
	var successor *postgres.Lead
	err = l.Tx(t.Context(), func(tx postgres.Fenced) error {
		_, err := tx.Tx().Exec(`INSERT INTO effects VALUES (1)`)
		must(t, err)
		_, err = tx.Tx().Exec(`SELECT FROM leaders WHERE name = 'a' FOR SHARE`) // as at the end of Tx
		must(t, err)
		until(t, "another leads", func() bool {
			successor = lead(t, others,
				"a")
			return successor != nil
		})
		return nil
	})
	if err == nil {
		t.Error("the stopped leader has committed")
	}
	defer successor.Release()
	if n := count(t, others, `SELECT count(*) FROM effects`); n != 0 {
		t.Errorf("%d effects of the stopped leader", n)
	}
}

// The tokens of one name only rise, and those of another are apart.
func TestTokensRise(t *testing.T) {
	t.Parallel()
	_, db := fresh(t)
	for want := int64(1); want <= 3; want++ {
		var l *postgres.Lead
		until(t, "the lead is free", func() bool { l = lead(t, db, "a"); return l != nil })
		if l.Token != want {
			t.Errorf("token %d, want %d", l.Token, want)
		}
		l.Release()
	}
	other := lead(t, db, "b")
	defer other.Release()
	if other.Token != 1 {
		t.Errorf("token %d of another name", other.Token)
	}
}
