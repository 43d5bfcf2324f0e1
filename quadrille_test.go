package quadrille_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

// asExample in the environment makes this program the example and nothing else.
const asExample = "QUADRILLE_TEST_EXAMPLE"

func TestMain(m *testing.M) {
	if os.Getenv(asExample) != "" {
		ExampleService()
		return
	}
	webtest.Main(m)
}

// database is empty: what is in it the service has migrated.
func database(t *testing.T) string {
	t.Helper()
	return servertest.Database(t, "empty", func(context.Context, string) error { return nil })
}

// table is the members' own: a row for each welcome.
var table = map[string]fs.FS{"members": fstest.MapFS{"001_members.sql": {Data: []byte(
	"-- +goose Up\nCREATE TABLE welcomed (event_id uuid, email text);\n")}}}

// welcome writes a row for each event, so that an effect that happens twice shows.
func welcome(ctx context.Context, tx *sqlx.Tx, e events.Of[UserJoined]) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO welcomed VALUES ($1, $2)`, e.ID, e.Data.Email)
	return err
}

// members is a service that publishes who joined, and welcomes them.
func members(t *testing.T, database, broker string,
	changes ...func(c *quadrille.Config)) *quadrille.Service {
	t.Helper()
	s, err := quadrille.New(configOf(t, database, broker, changes...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func configOf(t *testing.T, database, broker string,
	changes ...func(c *quadrille.Config)) quadrille.Config {
	c := quadrille.Config{
		Name: "members", Publishes: []events.Payload{UserJoined{}},
		Handlers: []consumer.Handler{consumer.Handle(welcome)},
		Database: database, AMQP: broker, Migrations: table, Log: zerolog.New(zerolog.NewTestWriter(t)),
	}
	for _, change := range changes {
		change(&c)
	}
	return c
}

// run runs a service until the end of the test, or until stop is called.
func run(t *testing.T, s *quadrille.Service) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func publish(t *testing.T, s *quadrille.Service, payloads ...events.Payload) {
	t.Helper()
	if err := s.Tx(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
		return s.Publish(ctx, tx,
			payloads...)
	}); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, s *quadrille.Service, from string) (n int) {
	t.Helper()
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.GetContext(t.Context(), &n, `SELECT count(*) FROM `+from); err != nil {
		t.Fatal(err)
	}
	return n
}

// becomes waits until so many rows are there.
func becomes(t *testing.T, s *quadrille.Service, want int, from string) {
	t.Helper()
	quadrilletest.WaitFor(t, fmt.Sprintf("%d rows of %s", want, from), func() (bool, string) {
		n := count(t, s, from)
		return n == want, fmt.Sprintf("%d rows, connected %v, %+v", n, s.Connected(), s.Stats())
	})
}

// What a stranger would paste runs as it stands, in a process of its own.
func TestExampleService(t *testing.T) {
	t.Parallel()
	url := database(t)
	broker, _ := servertest.Vhost(t)
	ctx, cancel := context.WithTimeout(t.Context(), quadrilletest.Timeout)
	defer cancel()
	program := exec.CommandContext(ctx, os.Args[0])
	program.Env = append(os.Environ(), "DATABASE_URL="+url, "AMQP_URL="+broker, asExample+"=1")
	var warnings strings.Builder // a busy machine may make it wait for its servers
	program.Stderr = &warnings
	if out, err := program.Output(); err != nil || string(out) != "welcome ada@example.com\n" {
		t.Errorf("it prints %q, %v, %s", out, err, &warnings)
	}
	s := members(t, url, broker)
	if n, m := count(t, s, "inbox"), count(t, s, "pending"); n != 1 || m != 0 {
		t.Errorf("%d events handled, %d pending", n, m)
	}
}

// A service without a logger that waits for its broker says so on standard error.
func TestServiceThatWaitsIsNotSilent(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), quadrilletest.Timeout)
	defer cancel()
	program := exec.CommandContext(ctx, os.Args[0])
	program.Env = append(os.Environ(), "DATABASE_URL="+database(t), "AMQP_URL="+webtest.NoBroker,
		asExample+"=1")
	warnings, err := program.StderrPipe()
	if err == nil {
		err = program.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := false
	for line := bufio.NewScanner(warnings); !said && line.Scan(); {
		said = strings.Contains(line.Text(), "connect to broker 127.0.0.1:1") &&
			strings.Contains(line.Text(), `"service":"members"`)
	}
	if !said {
		t.Error("it does not say that it cannot connect to the broker")
	}
	cancel()
	_ = program.Wait() // it was killed
}

func TestWhatWaitingWillNotMendEndsRun(t *testing.T) {
	t.Parallel()
	good, broker := database(t), "amqp://user:hush@127.0.0.1:1/"
	lossy := database(t)
	plain := members(t, lossy, broker)
	if db, err := plain.DB(t.Context()); err != nil {
		t.Fatal(err)
	} else if _, err := db.ExecContext(t.Context(),
		`DO $$ BEGIN
			EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
		END $$`); err != nil {
		t.Fatal(err)
	}
	joined := topology.Topology{Name: "club", Services: []topology.Service{{
		Name: "members", Commands: []topology.Command{{Does: "join", Publishes: []string{"user.joined",
			"user.left"}}},
		Reacts: []topology.Reaction{{Handles: "user.joined", Does: "welcome"},
			{Handles: "user.left", Does: "mourn"}},
	}}}
	for want, change := range map[string]func(c *quadrille.Config){
		"no handler for user.left": func(c *quadrille.Config) { c.Topology = joined },
		"two handlers for user.joined": func(c *quadrille.Config) {
			c.Topology, c.Handlers = joined, append(c.Handlers, c.Handlers...)
		},
		"reacts to user.joined twice": func(c *quadrille.Config) {
			c.Handlers = append(c.Handlers, c.Handlers...)
		},
		`handles "user.joined", which no service`: func(c *quadrille.Config) { c.Publishes = nil },
		`service name "Members"`:                  func(c *quadrille.Config) { c.Name = "Members" },
		"sslmode is not set": func(c *quadrille.Config) {
			c.Database = "postgres://u:hush@h/d"
		},
		"an option that the driver refuses": func(c *quadrille.Config) {
			c.Database = "postgres://u:hush@h/d?sslmode=maybe"
		},
		"database URL: want postgres://": func(c *quadrille.Config) {
			c.Database = "mysql://u:hush@h/d"
		},
		"Lanes is -1": func(c *quadrille.Config) { c.Bounds.Lanes = -1 },
		"DatabaseTLS: Certificate and Key": func(c *quadrille.Config) {
			c.DatabaseTLS.Certificate = "client.pem"
		},
		"AMQPTLS: the files are for amqps:// only": func(c *quadrille.Config) {
			c.AMQPTLS.CA = "ca.pem"
		},
		"broker URL: want amqp://":  func(c *quadrille.Config) { c.AMQP = "http://u:hush@h/" },
		"synchronous_commit is off": func(c *quadrille.Config) { c.Database = lossy },
		"OutboxKeep is 1500h0m0s and Bounds.ReceiptHistory is 1440h0m0s": func(c *quadrille.Config) {
			c.OutboxKeep = 1500 * time.Hour
		},
		"LeaderDatabase is the address of": func(c *quadrille.Config) { c.LeaderDatabase = lossy },
		"LeaderDatabase: database URL": func(c *quadrille.Config) {
			c.LeaderDatabase = "mysql://u:hush@h/d"
		},
	} {
		s, err := quadrille.New(configOf(t, good, broker, change))
		if err == nil {
			ctx, cancel := context.WithTimeout(t.Context(), quadrilletest.Timeout)
			err = s.Run(ctx)
			cancel()
			_ = s.Close()
		}
		if !errors.Is(err, quadrille.ErrMisconfigured) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if strings.Contains(fmt.Sprint(err), "hush") {
			t.Errorf("%v has a password in it", err)
		}
	}
}

// Nobody is there, and Run waits; it ends when it is told to.
func TestRunWaitsForItsServersAndStops(t *testing.T) {
	t.Parallel()
	var log lines
	away := members(t, "postgres://u:hush@127.0.0.1:1/d?sslmode=disable",
		"amqp://u:hush@127.0.0.1:1/", func(c *quadrille.Config) { c.Log = zerolog.New(&log) })
	stop := run(t, away)
	log.becomes(t, "waiting for the database")
	if err := away.Ready(t.Context()); err == nil || errors.Is(err, quadrille.ErrMisconfigured) ||
		away.Connected() {
		t.Errorf("ready: %v, connected %v", err, away.Connected())
	}
	stop()
	alone := members(t, database(t), "amqp://u:hush@127.0.0.1:1/",
		func(c *quadrille.Config) { c.Log = zerolog.New(&log) })
	stop = run(t, alone)
	publish(t, alone, UserJoined{"1", "ada@example.com"})
	log.becomes(t, "connect to broker")
	if err := alone.Ready(t.Context()); err != nil || alone.Connected() {
		t.Errorf("ready: %v, connected %v", err, alone.Connected())
	}
	stop()
	if text := log.String(); strings.Contains(text, "hush") {
		t.Errorf("a password is logged: %s", text)
	}
}

// A database that takes the call and says nothing must not make a queue of those who ask.
func TestADatabaseThatDoesNotAnswerMakesNoQueue(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	var taking sync.WaitGroup
	taking.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			defer func() { _ = conn.Close() }()
		}
	})
	defer taking.Wait()
	defer func() { _ = listener.Close() }() // and what it took: the opening in hand fails
	s := members(t, "postgres://u:p@"+listener.Addr().String()+"/d?sslmode=disable&connect_timeout=20",
		webtest.NoBroker)
	began := time.Now()
	webtest.Together(t, 20, func(int) error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := s.Tx(ctx, func(context.Context, *sqlx.Tx) error { return nil }); !errors.Is(err,
			context.DeadlineExceeded) {
			return fmt.Errorf("%v, want the deadline", err)
		}
		return nil
	})
	if stats := s.Stats(); stats.Relay != (outbox.Stats{}) || stats.Consumer != (consumer.Stats{}) ||
		len(stats.SessionEnds)+len(stats.Breakers) != 0 || s.Connected() {
		t.Error("it has done something")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("20 callers with 200 ms of patience waited %s", took)
	}
	if n := calls.Load(); n > 1 {
		t.Errorf("%d calls at the same time", n)
	}
}

// lines is a log that a test reads.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) becomes(t *testing.T, want string) {
	t.Helper()
	quadrilletest.WaitFor(t, fmt.Sprintf("%q in the log", want), func() (bool, string) {
		text := l.String()
		return strings.Contains(text, want), text
	})
}

// A type that is mandatory waits in the outbox until somebody is bound; without that it is
// published to nobody, which is counted.
func TestMandatoryTypesWaitForASubscriber(t *testing.T) {
	t.Parallel()
	for _, mandatory := range []bool{true, false} {
		broker, _ := servertest.Vhost(t)
		s := members(t, database(t), broker, func(c *quadrille.Config) {
			c.Handlers = nil
			if mandatory {
				c.Mandatory = func(eventType string) bool { return eventType == UserJoined{}.EventType() }
			}
		})
		run(t, s)
		if err := s.Tx(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
			return s.Publish(ctx, tx, UserJoined{ID: "1", Email: "ada@example.org"})
		}); err != nil {
			t.Fatal(err)
		}
		quadrilletest.WaitFor(t, "the event to be held, or counted", func() (bool, string) {
			st := s.Stats().Relay
			return mandatory && st.Held == 1 && st.Unrouted == 0 || !mandatory && st.Unrouted == 1 &&
				st.Held == 0, fmt.Sprintf("%+v", st)
		})
	}
}
