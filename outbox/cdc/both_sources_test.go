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

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// forBothSources runs a test once with the window and once with the stream. Both must keep the same
// promises.
func forBothSources(t *testing.T, f func(t *testing.T, source outbox.SourceName)) {
	for _, source := range []outbox.SourceName{outbox.FromWindow, outbox.FromStream} {
		t.Run(string(source), func(t *testing.T) {
			t.Parallel()
			f(t, source)
		})
	}
}

// newRelay returns a replica that can use both sources, and switches to the given one.
func newRelay(t *testing.T, s *outboxtest.Env, source outbox.SourceName) *outbox.Relay {
	t.Helper()
	r := s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database)))
	r.Source = cdcSource(t, s)
	useSource(t, s, source)
	return r
}

func useSource(t *testing.T, s *outboxtest.Env, source outbox.SourceName) {
	t.Helper()
	s.WaitFor("the source is set", func() bool { return s.Out.UseSource(t.Context(), source) == nil })
}

// awaitLeader waits until one of the replicas leads with that source.
func awaitLeader(s *outboxtest.Env, source outbox.SourceName,
	replicas ...*outbox.Relay) (leader *outbox.Relay) {
	s.WaitFor("a replica leads with the "+string(source), func() bool {
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

// startWriters runs hostile writers until stop is called.
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
					pg.ClassOf(err) != pg.Lost && pg.ClassOf(err) != pg.Busy {
					t.Error(err)
					return
				}
			}
		})
	}
	return func() { cancel(); running.Wait() }
}

// checkDelivered fails the test unless every committed event is delivered, and the first deliveries
// of each aggregate are in order. It returns the number of repeated deliveries that it saw.
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
			t.Errorf("%s %d was delivered after %d", n.On, n.N, last[n.On])
		}
		last[n.On] = n.N
	}
	s.AwaitSettled()
	return repeated
}

// checkPublishedOnce fails the test unless the relay has published every event exactly once.
func checkPublishedOnce(t *testing.T, s *outboxtest.Env, r *outbox.Relay) {
	t.Helper()
	if n, want := r.Stats().Published, s.Count(`SELECT count(*) FROM outbox`); n != want {
		t.Errorf("the relay published %d events, want %d", n, want)
	}
}

// awaitCommitted waits until more than n rows are committed.
func awaitCommitted(s *outboxtest.Env, n int64) {
	s.WaitFor(fmt.Sprintf("more than %d rows are committed", n), func() bool {
		return s.Count(`SELECT count(*) FROM outbox`) > n
	})
}

// Hostile writers commit in another order than they begin, also in a transaction that the stream
// returns in several parts.
func TestOrder(t *testing.T) {
	forBothSources(t, func(t *testing.T, source outbox.SourceName) {
		s := outboxtest.New(t)
		r := newRelay(t, s, source)
		s.Run(r)
		awaitLeader(s, source, r)
		stop := startWriters(t, s, 8)
		awaitCommitted(s, 1000)
		var numbers []int
		for n := range 1100 { // more rows than the stream returns at once
			numbers = append(numbers, n+1)
		}
		s.AppendNotes("large", numbers...)
		awaitCommitted(s, 2500)
		stop()
		checkDelivered(t, s)
		checkPublishedOnce(t, s, r)
		awaitLeader(s, source, r) // it still does
	})
}

// The broker session is cut while confirms are on their way.
func TestUnknownConfirm(t *testing.T) {
	forBothSources(t, func(t *testing.T, source outbox.SourceName) {
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
		t.Logf("%d events were delivered more than once", checkDelivered(t, s))
	})
}

// One leader is stopped, and the next loses its database sessions.
func TestLeaderChange(t *testing.T) {
	forBothSources(t, func(t *testing.T, source outbox.SourceName) {
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
		t.Logf("%d events were delivered more than once", checkDelivered(t, s))
	})
}

// The leading process is killed, and the next is stopped by SIGSTOP.
func TestCrash(t *testing.T) {
	forBothSources(t, func(t *testing.T, source outbox.SourceName) {
		s := outboxtest.New(t)
		r := newRelay(t, s, source) // stands by
		stop := startWriters(t, s, 4)
		for n, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
			p := outboxtest.StartProcess(t, s.Database, s.AMQP)
			p.AwaitOutput(map[outbox.SourceName]string{outbox.FromStream: "relay streams",
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
		t.Logf("%d events were delivered more than once", checkDelivered(t, s))
	})
}

// The database server is restarted, and then killed.
func TestRestart(t *testing.T) {
	forBothSources(t, func(t *testing.T, source outbox.SourceName) {
		servers := servertest.PrivatePostgres(t)
		if err := pg.Migrate(t.Context(), servers.PostgresURL, "outbox",
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
		s.WaitFor("the server is back", func() bool { return s.DB.Ping() == nil })
		awaitCommitted(s, 600)
		if err := servers.KillPostgres(); err != nil {
			t.Fatal(err)
		}
		// The server does not start until the last child process of the killed one has ended.
		s.WaitFor("the server starts again",
			func() bool { return servers.RestartPostgres(t.Context()) == nil })
		s.WaitFor("the server is back", func() bool { return s.DB.Ping() == nil })
		awaitCommitted(s, 900)
		awaitLeader(s, source, r)
		stop()
		t.Logf("%d events were delivered more than once", checkDelivered(t, s))
	})
}

// An event that cannot be published is held, and stays held when the stream goes back or the leader
// changes. Later events of its aggregate wait, and all other events are published.
func TestHeldRows(t *testing.T) {
	forBothSources(t, func(t *testing.T, source outbox.SourceName) {
		s := outboxtest.New(t)
		r := newRelay(t, s, source)
		stop := s.Run(r)
		awaitLeader(s, source, r)
		// Append does not write such headers.
		bad := s.InsertRaw("a", "note.taken", `{}`, `[]`)
		good := s.AppendNotes("b", 1)
		behind := s.AppendNotes("a", 1)
		s.Await(s.Queue, good)
		held := func() bool {
			return s.Count(`SELECT count(*) FROM outbox_held WHERE due = 'infinity' AND attempts = 1`) == 1
		}
		s.WaitFor("the event is quarantined", held)
		for range 2 {
			stop()
			stop = s.Run(r)
			awaitLeader(s, source, r)
			s.Await(s.Queue, s.AppendNotes("b", 2))
		}
		s.WaitFor("the event behind it waits", func() bool {
			ids := s.HeldIDs("true")
			return len(ids) == 2 && slices.Contains(ids, bad) && slices.Contains(ids, behind[0])
		})
		if !held() {
			t.Error("the quarantined event was released or retried")
		}
	})
}
