package cdc_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/quadrille-go/quadrille/internal/devstack"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
	"github.com/quadrille-go/quadrille/postgres"
)

// The suite is one for both ways out of the outbox.
func forBothSources(t *testing.T, name string, f func(t *testing.T, source string)) {
	for _, source := range []string{outbox.FromWindow, outbox.FromStream} {
		t.Run(name+" from the "+source, func(t *testing.T) {
			t.Parallel()
			f(t, source)
		})
	}
}

// newRelay is a replica that can go both ways; it is told which.
func newRelay(t *testing.T, s *outboxtest.Env, source string) *outbox.Relay {
	t.Helper()
	r := s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database)))
	r.Source = cdcSource(t, s)
	useSource(t, s, source)
	return r
}

func useSource(t *testing.T, s *outboxtest.Env, source string) {
	t.Helper()
	s.WaitFor("the way is chosen", func() bool { return s.Out.UseSource(t.Context(), source) == nil })
}

// awaitLeader waits until one of the replicas leads that way.
func awaitLeader(s *outboxtest.Env, source string,
	replicas ...*outbox.Relay) (leader *outbox.Relay) {
	s.WaitFor("a replica leads from the "+source, func() bool {
		for _, r := range replicas {
			if st := r.Stats(); st.Leading && st.Streaming == (source == outbox.FromStream) {
				leader = r
				return true
			}
		}
		return false
	})
	return leader
}

// startWriters runs hostile writers until stop.
func startWriters(t *testing.T, s *outboxtest.Env, writers int) (stop func()) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s.CreateVersionTable()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for w := range uint64(writers) {
		running.Go(func() {
			random := rand.New(rand.NewPCG(seed, w))
			for ctx.Err() == nil {
				if err := s.HostileWrite(t.Context(), random); err != nil &&
					postgres.ClassOf(err) != postgres.Lost && postgres.ClassOf(err) != postgres.Busy {
					t.Error(err)
					return
				}
			}
		})
	}
	return func() { cancel(); running.Wait() }
}

// checkDelivered takes what came: every committed event, the first time in the order of its
// aggregate. It returns how many are known to have come more than once.
func checkDelivered(t *testing.T, s *outboxtest.Env) (repeated int) {
	t.Helper()
	var committed []string
	if err := s.DB.Select(&committed, `SELECT id::text FROM outbox`); err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for _, id := range committed {
		missing[id] = true
	}
	last := map[string]int{}
	next, stop := s.Consume(s.Queue)
	defer stop()
	for len(missing) > 0 {
		d := next()
		if !missing[d.MessageId] {
			repeated++
			continue
		}
		delete(missing, d.MessageId)
		var n outboxtest.Note
		if err := json.Unmarshal(d.Body, &n); err != nil {
			t.Fatal(err)
		}
		if n.N <= last[n.On] {
			t.Errorf("%s %d came after %d", n.On, n.N, last[n.On])
		}
		last[n.On] = n.N
	}
	s.AwaitSettled()
	return repeated
}

// checkPublishedOnce fails the test when a relay has published something twice.
func checkPublishedOnce(t *testing.T, s *outboxtest.Env, r *outbox.Relay) {
	t.Helper()
	if n, want := r.Stats().Published, s.Count(`SELECT count(*) FROM outbox`); n != want {
		t.Errorf("%d of %d events were published", n, want)
	}
}

func awaitCommitted(s *outboxtest.Env, n int64) {
	s.WaitFor(fmt.Sprint(n, " rows are committed"), func() bool {
		return s.Count(`SELECT count(*)
		FROM outbox`) > n
	})
}

func TestOrder(t *testing.T) {
	forBothSources(t, "hostile writers", func(t *testing.T, source string) {
		s := outboxtest.New(t)
		r := newRelay(t, s, source)
		s.Run(r)
		awaitLeader(s, source, r)
		stop := startWriters(t, s, 8)
		awaitCommitted(s, 1000)
		var numbers []int
		for n := range 1100 { // a transaction of several parts
			numbers = append(numbers, n+1)
		}
		s.AppendNotes("large", numbers...)
		awaitCommitted(s, 2500)
		stop()
		checkDelivered(t, s)
		checkPublishedOnce(t, s, r)
		awaitLeader(s, source, r) // still
	})
}

func TestUnknownConfirm(t *testing.T) {
	forBothSources(t, "a session cut with confirms under way", func(t *testing.T, source string) {
		s := outboxtest.New(t)
		r := newRelay(t, s, source)
		proxy := outboxtest.NewProxy(t, s.AMQP)
		r.URL = proxy.URL
		s.Run(r)
		awaitLeader(s, source, r)
		stop := startWriters(t, s, 4)
		for n := range int64(3) {
			awaitCommitted(s, 200*(n+1))
			proxy.Hold(outboxtest.FromBroker)
			s.WaitFor("a confirm is held", func() bool { return proxy.Waiting(outboxtest.FromBroker) })
			proxy.Cut()
			proxy.Release()
			awaitLeader(s, source, r)
		}
		stop()
		t.Logf("%d events came twice", checkDelivered(t, s))
	})
}

func TestLeaderChange(t *testing.T) {
	forBothSources(t, "stopped in order, cut, one after the other", func(t *testing.T, source string) {
		s := outboxtest.New(t)
		first, second := newRelay(t, s, source), newRelay(t, s, source)
		stopFirst := s.Run(first)
		awaitLeader(s, source, first)
		s.Run(second)
		stop := startWriters(t, s, 4)
		awaitCommitted(s, 300)
		stopFirst()
		awaitLeader(s, source, second)
		s.Run(first)
		awaitCommitted(s, 600)
		s.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
			AND pid <> pg_backend_pid()
			AND (backend_type = 'walsender' OR query LIKE '%outbox_cursor%'
				OR query LIKE '%pg_visible_in_snapshot%')`)
		awaitLeader(s, source, first, second)
		awaitCommitted(s, 900)
		awaitLeader(s, source, first, second)
		stop()
		t.Logf("%d events came twice", checkDelivered(t, s))
	})
}

func TestCrash(t *testing.T) {
	forBothSources(t, "kill -9 and SIGSTOP of the leading process", func(t *testing.T, source string) {
		s := outboxtest.New(t)
		r := newRelay(t, s, source) // stands by
		stop := startWriters(t, s, 4)
		for n, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
			p := outboxtest.StartProcess(t, s.Database, s.AMQP)
			p.AwaitOutput(map[string]string{outbox.FromStream: "relay streams",
				outbox.FromWindow: "relay leads"}[source])
			awaitCommitted(s, int64(300*(n+1)))
			p.Signal(signal)
			stopRelay := s.Run(r)
			awaitLeader(s, source, r)
			awaitCommitted(s, int64(300*(n+1)+200))
			stopRelay()
		}
		s.Run(r)
		stop()
		t.Logf("%d events came twice", checkDelivered(t, s))
	})
}

func TestRestart(t *testing.T) {
	forBothSources(t, "of the database server, in order and by a crash",
		func(t *testing.T, source string) {
			servers := devstack.PrivatePostgres(t)
			if err := postgres.Migrate(t.Context(), servers.PostgresURL, "outbox",
				outbox.Migrations()); err != nil {
				t.Fatal(err)
			}
			s := outboxtest.NewOn(t, servers.PostgresURL)
			r := newRelay(t, s, source)
			s.Run(r)
			awaitLeader(s, source, r)
			stop := startWriters(t, s, 4)
			awaitCommitted(s, 300)
			if err := servers.RestartPostgres(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.WaitFor("it is back", func() bool { return s.DB.Ping() == nil })
			awaitCommitted(s, 600)
			if err := servers.KillPostgres(); err != nil {
				t.Fatal(err)
			}
			// Until the last child of the server that was killed has ended, another one does not start.
			s.WaitFor("it starts again", func() bool { return servers.RestartPostgres(t.Context()) == nil })
			s.WaitFor("it is back", func() bool { return s.DB.Ping() == nil })
			awaitCommitted(s, 900)
			awaitLeader(s, source, r)
			stop()
			t.Logf("%d events came twice", checkDelivered(t, s))
		})
}

// An event that cannot be published is held, and stays held when the stream goes back or the way
// changes; those behind it wait, the others flow.
func TestHeldRows(t *testing.T) {
	forBothSources(t, "an event that nobody can publish", func(t *testing.T, source string) {
		s := outboxtest.New(t)
		r := newRelay(t, s, source)
		stop := s.Run(r)
		awaitLeader(s, source, r)
		// headers that nobody has written with this package
		bad := s.InsertRaw("a", "note.taken", `{}`, `[]`)
		good := s.AppendNotes("b", 1)
		behind := s.AppendNotes("a", 1)
		s.Await(s.Queue, good)
		held := func() bool {
			return s.Count(`SELECT count(*) FROM outbox_held WHERE due = 'infinity' AND attempts = 1`) == 1
		}
		s.WaitFor("it is held for ever", held)
		for range 2 {
			stop()
			stop = s.Run(r)
			awaitLeader(s, source, r)
			s.Await(s.Queue, s.AppendNotes("b", 2))
		}
		s.WaitFor("what is behind it waits", func() bool {
			ids := s.HeldIDs("true")
			return len(ids) == 2 && slices.Contains(ids, bad) && slices.Contains(ids, behind[0])
		})
		if !held() {
			t.Error("it is not held any more as it was")
		}
	})
}
