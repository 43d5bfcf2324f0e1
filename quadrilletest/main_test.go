package quadrilletest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/topology"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// joined is the event of the service members, greeted that of the service mail.
type (
	joined  struct{ ID string }
	greeted struct{ ID string }
)

func (joined) EventType() string  { return "user.joined" }
func (j joined) Subject() string  { return j.ID }
func (greeted) EventType() string { return "user.greeted" }
func (g greeted) Subject() string { return g.ID }

// members publishes that users have joined.
func members(t *testing.T, database, broker string) *quadrille.Service {
	t.Helper()
	return service(t, quadrille.Config{Name: "members", Publishes: []events.Payload{joined{}},
		Database: database, AMQP: broker})
}

// mail greets users who have joined.
func mail(t *testing.T, database, broker string) *quadrille.Service {
	t.Helper()
	var s *quadrille.Service
	s = service(t, quadrille.Config{Name: "mail", Publishes: []events.Payload{greeted{}},
		Topology: topology.Topology{Name: "users", Services: []topology.Service{{Name: "members",
			Commands: []topology.Command{{Does: "join", Publishes: []string{"user.joined"}}}}}},
		Handlers: []consumer.Handler{consumer.Handle(
			func(ctx context.Context, tx *sqlx.Tx, e events.Of[joined]) error {
				return s.Publish(ctx, tx, greeted(e.Data))
			})},
		Database: database, AMQP: broker})
	return s
}

func service(t *testing.T, c quadrille.Config) *quadrille.Service {
	t.Helper()
	c.Log = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	s, err := quadrille.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// join publishes events of members, when it has its database.
func join(ctx context.Context, s *quadrille.Service, ids ...string) error {
	return s.Tx(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		for _, id := range ids {
			if err := s.Publish(ctx, tx, joined{id}); err != nil {
				return err
			}
		}
		return nil
	})
}

// double is a test that a helper of the kit fails: it records that, and the real test goes on.
type double struct {
	*testing.T
	mu       sync.Mutex
	failures []string
	cleanups []func()
}

func (d *double) Helper() {}

func (d *double) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.failures)
}

func (d *double) Errorf(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures = append(d.failures, fmt.Sprintf(format, args...))
}

func (d *double) Fatalf(format string, args ...any) { d.Errorf(format, args...); runtime.Goexit() }
func (d *double) Fatal(args ...any)                 { d.Fatalf("%s", fmt.Sprint(args...)) }
func (d *double) Cleanup(f func())                  { d.cleanups = append(d.cleanups, f) }

// failing runs a test that must fail, and returns why it did.
func failing(t *testing.T, test func(t testing.TB)) string {
	t.Helper()
	d := &double{T: t}
	ended := make(chan struct{})
	go func() { defer close(ended); test(d) }()
	<-ended
	for i := len(d.cleanups) - 1; i >= 0; i-- {
		d.cleanups[i]()
	}
	if len(d.failures) == 0 {
		t.Error("the test did not fail")
	}
	var all error
	for _, f := range d.failures {
		all = errors.Join(all, errors.New(f))
	}
	return fmt.Sprint(all)
}
