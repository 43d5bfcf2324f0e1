package eventstore_test

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// waitTimeout bounds how long a test waits for a condition.
const waitTimeout = 2 * time.Minute

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // the tests mostly wait for the server
	leaks.Main(m)
}

// added is the only type of event of a counter.
type added struct {
	Counter string `json:"counter"`
	N       int    `json:"n"`
}

func (added) EventType() string { return "counter.added" }
func (a added) Subject() string { return a.Counter }

// counter is an aggregate that sums the numbers added to it.
type counter struct {
	Name string `json:"name"`
	Sum  int    `json:"sum"`
}

func (c counter) Fold(p events.Payload) counter {
	a := p.(added)
	return counter{a.Counter, c.Sum + a.N}
}
func (counter) FoldVersion() int        { return 1 }
func (counter) Facts() []events.Payload { return []events.Payload{added{}} }

// fact returns the event that n was added to a counter.
func fact(name string, n int) events.Event {
	return events.Cause(events.Event{}, "/counters", time.Now(), added{name, n})
}

func facts(name string, n ...int) (all []events.Event) {
	for _, x := range n {
		all = append(all, fact(name, x))
	}
	return all
}

// store is a database with an event store in it.
type store struct {
	testing.TB
	url string
	*sqlx.DB
}

func newStore(t testing.TB) store {
	t.Helper()
	key := ""
	names, err := fs.Glob(eventstore.Migrations(), "*.sql")
	must(t, err)
	for _, name := range names {
		text, err := fs.ReadFile(eventstore.Migrations(), name)
		must(t, err)
		key += string(text)
	}
	url := servertest.Database(t, key, func(ctx context.Context, url string) error {
		return pg.Migrate(ctx, url, "eventstore", eventstore.Migrations())
	})
	return store{t, url, pool(t, url)}
}

func pool(t testing.TB, url string) *sqlx.DB {
	t.Helper()
	db, err := pg.Open(url)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// append appends to a stream in a transaction of its own.
func (s store) append(stream string, expected eventstore.Head,
	facts ...events.Event) (head eventstore.Head, err error) {
	err = pg.InTx(s.Context(), s.DB, func(tx *sqlx.Tx) error {
		head, err = eventstore.Append(s.Context(), tx, stream, expected, facts...)
		return err
	})
	return head, err
}

// grow appends n events to a stream, one by one.
func (s store) grow(name string, n int) (head eventstore.Head) {
	s.Helper()
	for i := range n {
		var err error
		head, err = s.append(streamOf(name), head, fact(name, i+1))
		must(s, err)
	}
	return head
}

func streamOf(name string) string { return eventstore.StreamOf("counter", name) }

// add adds to a counter, and tries again as long as another writer is first.
func (s store) add(ctx context.Context, name string, n int) error {
	for {
		found, err := eventstore.Fold[counter](ctx, s, streamOf(name))
		if err != nil {
			return err
		}
		_, err = s.append(streamOf(name), found[streamOf(name)].Head, fact(name, n))
		if _, conflict := errors.AsType[*eventstore.Conflict](err); !conflict {
			return err
		}
	}
}

func (s store) sum(name string) int {
	s.Helper()
	found, err := eventstore.Fold[counter](s.Context(), s, streamOf(name))
	must(s, err)
	return found[streamOf(name)].State.Sum
}

func (s store) exec(query string, args ...any) {
	s.Helper()
	_, err := s.ExecContext(s.Context(), query, args...)
	if err != nil {
		s.Fatalf("%s: %v", query, err)
	}
}

func (s store) int(query string, args ...any) (n int) {
	s.Helper()
	if err := s.GetContext(s.Context(), &n, query, args...); err != nil {
		s.Fatalf("%s: %v", query, err)
	}
	return n
}

// waitFor waits until a condition is true.
func (s store) waitFor(what string, f func() bool) {
	s.Helper()
	quadrilletest.WaitFor(s.TB, what, func() (bool, string) { return f(), "" })
}

func now() time.Time { return time.Now() }
