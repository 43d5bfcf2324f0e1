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
func both(t *testing.T, name string, f func(t *testing.T, way string)) {
	for _, way := range []string{outbox.FromWindow, outbox.FromStream} {
		t.Run(name+" from the "+way, func(t *testing.T) {
			t.Parallel()
			f(t, way)
		})
	}
}

// relay is a replica that can go both ways; it is told which.
func relay(t *testing.T, s *outboxtest.Env, way string) *outbox.Relay {
	t.Helper()
	r := s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database)))
	r.Source = source(t, s)
	use(t, s, way)
	return r
}

func use(t *testing.T, s *outboxtest.Env, way string) {
	t.Helper()
	s.Until("the way is chosen", func() bool { return s.Out.UseSource(t.Context(), way) == nil })
}

// goes waits until one of the replicas leads that way.
func goes(s *outboxtest.Env, way string, replicas ...*outbox.Relay) (leader *outbox.Relay) {
	s.Until("a replica leads from the "+way, func() bool {
		for _, r := range replicas {
			if st := r.Stats(); st.Leading && st.Streaming == (way == outbox.FromStream) {
				leader = r
				return true
			}
		}
		return false
	})
	return leader
}

// load runs hostile writers until stop.
func load(t *testing.T, s *outboxtest.Env, writers int) (stop func()) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s.Versions()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for w := range uint64(writers) {
		running.Go(func() {
			random := rand.New(rand.NewPCG(seed, w))
			for ctx.Err() == nil {
				if err := s.Hostile(t.Context(), random); err != nil &&
					postgres.ClassOf(err) != postgres.Lost && postgres.ClassOf(err) != postgres.Busy {
					t.Error(err)
					return
				}
			}
		})
	}
	return func() { cancel(); running.Wait() }
}

// judge takes what came: every committed event, the first time in the order of its aggregate. It
// returns how many are known to have come more than once.
func judge(t *testing.T, s *outboxtest.Env) (repeated int) {
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
	next, stop := s.Stream(s.Queue)
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
	s.Settled()
	return repeated
}

// once fails the test when a relay has published something twice.
func once(t *testing.T, s *outboxtest.Env, r *outbox.Relay) {
	t.Helper()
	if n, want := r.Stats().Published, s.Count(`SELECT count(*) FROM outbox`); n != want {
		t.Errorf("%d of %d events were published", n, want)
	}
}

func published(s *outboxtest.Env, n int64) {
	s.Until(fmt.Sprint(n, " rows are committed"), func() bool {
		return s.Count(`SELECT count(*)
		FROM outbox`) > n
	})
}

func TestOrder(t *testing.T) {
	both(t, "hostile writers", func(t *testing.T, way string) {
		s := outboxtest.New(t)
		r := relay(t, s, way)
		s.Run(r)
		goes(s, way, r)
		stop := load(t, s, 8)
		published(s, 1000)
		var numbers []int
		for n := range 1100 { // a transaction of several parts
			numbers = append(numbers, n+1)
		}
		s.Publish("large", numbers...)
		published(s, 2500)
		stop()
		judge(t, s)
		once(t, s, r)
		goes(s, way, r) // still
	})
}

func TestUnknownConfirm(t *testing.T) {
	both(t, "a session cut with confirms under way", func(t *testing.T, way string) {
		s := outboxtest.New(t)
		r := relay(t, s, way)
		link := outboxtest.NewLink(t, s.AMQP)
		r.URL = link.URL
		s.Run(r)
		goes(s, way, r)
		stop := load(t, s, 4)
		for n := range int64(3) {
			published(s, 200*(n+1))
			link.Hold(outboxtest.FromBroker)
			s.Until("a confirm is held", func() bool { return link.Waiting(outboxtest.FromBroker) })
			link.Cut()
			link.Release()
			goes(s, way, r)
		}
		stop()
		t.Logf("%d events came twice", judge(t, s))
	})
}

func TestLeaderChange(t *testing.T) {
	both(t, "stopped in order, cut, one after the other", func(t *testing.T, way string) {
		s := outboxtest.New(t)
		first, second := relay(t, s, way), relay(t, s, way)
		stopFirst := s.Run(first)
		goes(s, way, first)
		s.Run(second)
		stop := load(t, s, 4)
		published(s, 300)
		stopFirst()
		goes(s, way, second)
		s.Run(first)
		published(s, 600)
		s.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
			AND pid <> pg_backend_pid()
			AND (backend_type = 'walsender' OR query LIKE '%outbox_cursor%'
				OR query LIKE '%pg_visible_in_snapshot%')`)
		goes(s, way, first, second)
		published(s, 900)
		goes(s, way, first, second)
		stop()
		t.Logf("%d events came twice", judge(t, s))
	})
}

func TestCrash(t *testing.T) {
	both(t, "kill -9 and SIGSTOP of the leading process", func(t *testing.T, way string) {
		s := outboxtest.New(t)
		r := relay(t, s, way) // stands by
		stop := load(t, s, 4)
		for n, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
			p := outboxtest.StartProcess(t, s.Database, s.AMQP)
			p.Output(map[string]string{outbox.FromStream: "relay streams",
				outbox.FromWindow: "relay leads"}[way])
			published(s, int64(300*(n+1)))
			p.Signal(signal)
			stopRelay := s.Run(r)
			goes(s, way, r)
			published(s, int64(300*(n+1)+200))
			stopRelay()
		}
		s.Run(r)
		stop()
		t.Logf("%d events came twice", judge(t, s))
	})
}

func TestRestart(t *testing.T) {
	both(t, "of the database server, in order and by a crash", func(t *testing.T, way string) {
		servers := devstack.PrivatePostgres(t)
		if err := postgres.Migrate(t.Context(), servers.PostgresURL, "outbox",
			outbox.Migrations()); err != nil {
			t.Fatal(err)
		}
		s := outboxtest.On(t, servers.PostgresURL)
		r := relay(t, s, way)
		s.Run(r)
		goes(s, way, r)
		stop := load(t, s, 4)
		published(s, 300)
		if err := servers.RestartPostgres(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Until("it is back", func() bool { return s.DB.Ping() == nil })
		published(s, 600)
		if err := servers.KillPostgres(); err != nil {
			t.Fatal(err)
		}
		// Until the last child of the server that was killed has ended, another one does not start.
		s.Until("it starts again", func() bool { return servers.RestartPostgres(t.Context()) == nil })
		s.Until("it is back", func() bool { return s.DB.Ping() == nil })
		published(s, 900)
		goes(s, way, r)
		stop()
		t.Logf("%d events came twice", judge(t, s))
	})
}

// An event that cannot be published is held, and stays held when the stream goes back or the way
// changes; those behind it wait, the others flow.
func TestHeldRows(t *testing.T) {
	both(t, "an event that nobody can publish", func(t *testing.T, way string) {
		s := outboxtest.New(t)
		r := relay(t, s, way)
		stop := s.Run(r)
		goes(s, way, r)
		bad := s.Raw("a", "note.taken", `{}`, `[]`) // headers that nobody has written with this package
		good := s.Publish("b", 1)
		behind := s.Publish("a", 1)
		s.Await(s.Queue, good)
		held := func() bool {
			return s.Count(`SELECT count(*) FROM outbox_held WHERE due = 'infinity' AND attempts = 1`) == 1
		}
		s.Until("it is held for ever", held)
		for range 2 {
			stop()
			stop = s.Run(r)
			goes(s, way, r)
			s.Await(s.Queue, s.Publish("b", 2))
		}
		s.Until("what is behind it waits", func() bool {
			ids := s.HeldIDs("true")
			return len(ids) == 2 && slices.Contains(ids, bad) && slices.Contains(ids, behind[0])
		})
		if !held() {
			t.Error("it is not held any more as it was")
		}
	})
}
