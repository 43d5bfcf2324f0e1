package consumertest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io/fs"
	"sync"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

const tables = `
CREATE TABLE payments (order_id text PRIMARY KEY, customer text NOT NULL, amount bigint NOT NULL,
	status text NOT NULL);
CREATE TABLE accounts (customer text PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE notes (n bigint GENERATED ALWAYS AS IDENTITY, consumer text NOT NULL,
	event_id uuid NOT NULL, text text NOT NULL);`

// Env is a database and a vhost of their own for one test, with the bank's topology applied.
type Env struct {
	testing.TB
	AMQP     string
	Postgres string
	DB       *sqlx.DB
	Topology topology.Topology
	Outbox   *outbox.Outbox

	mu        sync.Mutex
	publisher *rabbit.Publisher
}

// New makes a world on the servers that all tests share.
func New(t testing.TB) *Env {
	t.Helper()
	amqpURL, _ := servertest.Vhost(t)
	return On(t, amqpURL, Database(t))
}

// Database makes a database with the tables of the bank, its inbox and its outbox.
func Database(t testing.TB) string {
	t.Helper()
	return servertest.Database(t, key(t), Migrate)
}

// On makes a world on given servers; the database must have been migrated.
func On(t testing.TB, amqpURL, postgresURL string) *Env {
	t.Helper()
	w := &Env{TB: t, AMQP: amqpURL, Postgres: postgresURL, Topology: Topology()}
	w.DB = w.Pool(postgresURL)
	w.Outbox = outbox.New(w.DB)
	if amqpURL != "" {
		if err := rabbit.Apply(t.Context(), amqpURL, w.Topology); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if w.publisher != nil {
			w.publisher.Close()
		}
	})
	return w
}

// Pool opens another pool, as another replica has it.
func (w *Env) Pool(postgresURL string) *sqlx.DB {
	w.Helper()
	db, err := pg.Open(postgresURL)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = db.Close() })
	return db
}

func key(t testing.TB) string {
	t.Helper()
	sum := sha256.New()
	sum.Write([]byte(tables))
	for _, files := range []fs.FS{inbox.Migrations(), outbox.Migrations()} {
		names, err := fs.Glob(files, "*.sql")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			data, err := fs.ReadFile(files, name)
			if err != nil {
				t.Fatal(err)
			}
			sum.Write(data)
		}
	}
	return "consumer-bank-" + hex.EncodeToString(sum.Sum(nil))
}

// Migrate makes all tables.
func Migrate(ctx context.Context, url string) error {
	if err := pg.Migrate(ctx, url, "inbox", inbox.Migrations()); err != nil {
		return err
	}
	if err := pg.Migrate(ctx, url, "outbox", outbox.Migrations()); err != nil {
		return err
	}
	db, err := pg.Open(url)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(ctx, tables)
	return err
}

// Consumer makes a consumer of the named service on the world's pool, or on another one.
func (w *Env) Consumer(name string, db *sqlx.DB, handlers ...consumer.Handler) *Consumer {
	if db == nil {
		db = w.DB
	}
	return &Consumer{
		Consumer: consumer.Consumer{Name: name, Topology: w.Topology, Handlers: handlers},
		URL:      w.AMQP, DB: db, Outbox: outbox.New(db),
		Log: zerolog.New(zerolog.NewTestWriter(w)).Level(zerolog.InfoLevel),
	}
}

// Start runs a consumer until stop is called, at the latest at the end of the test.
func (w *Env) Start(c *Consumer) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	stop = func() { cancel(); <-done }
	w.Cleanup(stop)
	return stop
}

// Bank starts a bank with further handlers.
func (w *Env) Bank(handlers ...consumer.Handler) (*Consumer, func()) {
	c := w.Consumer(Service, nil, append(handlers, Participant(nil).Handler())...)
	return c, w.Start(c)
}

// Int returns the one number that a query selects.
func (w *Env) Int(query string, args ...any) int {
	w.Helper()
	var n int
	if err := w.DB.GetContext(w.Context(), &n, query, args...); err != nil {
		w.Fatalf("%s: %v", query, err)
	}
	return n
}

// Exec runs a statement.
func (w *Env) Exec(query string, args ...any) {
	w.Helper()
	if _, err := w.DB.ExecContext(w.Context(), query, args...); err != nil {
		w.Fatalf("%s: %v", query, err)
	}
}

// RetryByHand has every failed attempt wait an hour longer than it would, so that a test sees it
// however slow the machine is, and says itself when the next one is due.
func (w *Env) RetryByHand() {
	w.Helper()
	w.Exec(`CREATE FUNCTION an_hour_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		NEW.due := NEW.due + interval '1 hour';
		NEW.updated_at := NEW.updated_at + interval '1 hour';
		RETURN NEW;
	END $$`)
	w.Exec(`CREATE TRIGGER an_hour_on BEFORE INSERT OR UPDATE OF updated_at ON pending FOR EACH ROW
		WHEN (NEW.attempts > 0) EXECUTE FUNCTION an_hour_on()`)
}

// Becomes waits until the query selects want.
func (w *Env) Becomes(want int, query string, args ...any) {
	w.Helper()
	w.Eventually(fmt.Sprintf("%s = %d", query, want), func() (bool, string) {
		n := w.Int(query, args...)
		return n == want, fmt.Sprintf("it is %d\n%s", n, w.Diagnosis())
	})
}

// Eventually waits until ok, or fails the test with the last diagnosis.
func (w *Env) Eventually(what string, ok func() (done bool, diagnosis string)) {
	w.Helper()
	quadrilletest.WaitFor(w.TB, what, ok)
}

// Diagnosis says what is in the inbox's tables.
func (w *Env) Diagnosis() string {
	var counts string
	_ = w.DB.GetContext(w.Context(), &counts,
		`SELECT format('inbox %s, outbox %s, payments %s, accounts %s, notes %s, pending %s',
		(SELECT count(*) FROM inbox), (SELECT count(*) FROM outbox), (SELECT count(*) FROM payments),
			(SELECT count(*) FROM accounts),
		(SELECT count(*) FROM notes), (SELECT json_agg(json_build_array(owner, key, type, attempts, due,
			left(reason, 200))) FROM pending))`)
	return counts
}

// Drained fails the test unless the bank's queue is empty; the consumers must have been stopped.
func (w *Env) Drained() {
	w.Helper()
	if n := w.Depth(topology.QueueOf(Service)); n != 0 {
		w.Errorf("%d messages were not acknowledged; %s", n, w.Diagnosis())
	}
}

// Main runs the tests of a package and fails if a goroutine is left.
func Main(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // they wait for servers, not for the processor
	leaks.Main(m)
}
