package eventstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/postgres"
)

// reset is a fact that only a newer release knows.
type reset struct {
	Counter string `json:"counter"`
}

func (reset) EventType() string { return "counter.reset" }
func (r reset) Subject() string { return r.Counter }

// newer is added in a version to come.
type newer struct {
	Counter string `json:"counter"`
}

func (newer) EventType() string { return "counter.added" }
func (n newer) Subject() string { return n.Counter }
func (newer) Major() int        { return 2 }

// waits fails the test unless an error makes what came wait, without parking it, and names the
// stream.
func waits(t *testing.T, err error) {
	t.Helper()
	var later interface {
		error
		RetryAfter() time.Duration
	}
	if !errors.As(err, &later) || later.RetryAfter() < time.Second {
		t.Fatalf("nothing waits for %v", err)
	}
	for _, parks := range []error{events.ErrMalformed, events.ErrUnknownType, events.ErrUnknownMajor} {
		if errors.Is(err, parks) {
			t.Errorf("what came would be parked for %v", err)
		}
	}
	if class := postgres.ClassOf(err); class != postgres.Other {
		t.Errorf("class %v of %v", class, err)
	}
}

// What this release cannot read, or what was changed, is no fault of the event that meets it;
// nothing is decided on it, and other streams go on.
func TestWhatIsStoredIsNotTheFaultOfWhatCame(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fact   events.Payload // appended by a newer release
		damage string
		misfit int64 // the version at which it does not fit; 0: a StoredError
	}{
		"a type of a newer release":    {fact: reset{"a"}},
		"a version of a newer release": {fact: newer{"a"}},
		"a changed payload": {damage: `UPDATE eventstore
			SET payload = '{"counter":"a","n":400}' WHERE stream = 'counter/a' AND version = 4`, misfit: 4},
		"a changed type": {damage: `UPDATE eventstore SET type = 'counter.reset'
			WHERE stream = 'counter/a' AND version = 2`, misfit: 2},
		"headers that do not decode": {damage: `UPDATE eventstore SET headers = '[]'
			WHERE stream = 'counter/a' AND version = 5`, misfit: 5},
		"half a hash": {damage: `UPDATE eventstore SET hash = 'x'
			WHERE stream = 'counter/a' AND version = 3`, misfit: 3},
		"no time": {damage: `UPDATE eventstore SET recorded_at = 'infinity'
			WHERE stream = 'counter/a' AND version = 3`},
		"an event removed": {damage: `DELETE FROM eventstore WHERE stream = 'counter/a'
			AND version = 2`, misfit: 2},
		"half a hash of the head": {damage: `UPDATE eventstore_streams SET hash = 'x'
			WHERE stream = 'counter/a'`},
		"the head removed": {damage: `DELETE FROM eventstore_streams
			WHERE stream = 'counter/a'`, misfit: 6},
		"the head moved to another hash": {damage: `UPDATE eventstore_streams SET hash = sha256('x')
			WHERE stream = 'counter/a'`, misfit: 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			head := s.grow("a", 6)
			if c.fact != nil {
				_, err := s.append("counter/a", head, events.Cause(events.Event{}, "/counters", now(), c.fact))
				must(t, err)
			}
			if c.damage != "" {
				s.exec(c.damage)
			}
			_, err := s.apply(s.DB, event(plus{"b", 1}), event(plus{"a", 1}))
			waits(t, err)
			misfit, is := errors.AsType[*eventstore.MismatchError](err)
			if is != (c.misfit > 0) || is && misfit.Version != c.misfit {
				t.Errorf("error %v, want a misfit of event %d", err, c.misfit)
			}
			if n := s.int(`SELECT count(*) FROM eventstore WHERE stream = 'counter/b' OR version > 6
				AND type = 'counter.added' AND headers ->> 'dataschema' LIKE '%:1'`); n != 0 {
				t.Error("something was decided")
			}
			if _, err := s.apply(s.DB, event(plus{"b", 1})); err != nil || s.sum("b") != 1 {
				t.Errorf("another stream: %v", err)
			}
		})
	}
}

// A snapshot is only a cache: one that does not even decode is made again.
func TestSnapshotThatDoesNotDecodeIsMadeAgain(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"half a hash":     `UPDATE eventstore_snapshots SET hash = 'x'`,
		"half a checksum": `UPDATE eventstore_snapshots SET sum = 'x'`,
		"a later event":   `UPDATE eventstore_snapshots SET version = 99`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			s.fill("a", 20)
			s.exec(damage)
			if s.sum("a") != 20 {
				t.Errorf("sum %d", s.sum("a"))
			}
			s.fill("a", 20)
			if n := s.int(`SELECT count(*) FROM eventstore_snapshots WHERE version IN (32, 40)
				AND length(hash) = 32 AND length(sum) = 32`); n != 1 {
				t.Error("it was not made again")
			}
		})
	}
}

// A projection stands still at a fact that only a newer release knows: it skips nothing, it tells
// so, and it goes on when a replica of that release leads. Facts of streams that it does not read
// are passed.
func TestProjectionStandsStillAtAFactOfANewerRelease(t *testing.T) {
	t.Parallel()
	for name, fact := range map[string]events.Payload{"type": reset{"a"}, "version": newer{"a"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			_, err := s.append("other/a", eventstore.Head{}, events.Cause(events.Event{}, "/counters", now(),
				fact))
			must(t, err)
			old := totals(1, sumUp)
			old.Kinds = []string{"counter"}
			p := s.projector(s.DB, old)
			stop := s.run(p)
			head := s.grow("a", 3)
			s.until("it has all of them", func() bool { return s.seen()["a"] == 3 })
			_, err = s.append("counter/a", head, events.Cause(events.Event{}, "/counters", now(), fact))
			must(t, err)
			s.until("it tells why it stands still", func() bool {
				progress, err := p.Progress(t.Context())
				must(t, err)
				return progress[0].Error != ""
			})
			s.grow("b", 2)
			if n := s.seen()["a"]; n != 3 {
				t.Errorf("it is at version %d", n)
			}
			stop()
			next := totals(1, func(rows *consumer.Rows[string, total], h eventstore.Decoded) {
				if _, ok := h.Data.(added); ok {
					sumUp(rows, h)
					return
				}
				rows.Set("a", total{"a", 0, h.Version, "", h.Time})
			})
			next.Kinds, next.Facts = old.Kinds, []events.Payload{added{}, reset{}}
			if name == "version" { // the samples of this test have no upcaster for the facts before it
				return
			}
			s.run(s.projector(s.DB, next))
			s.until("it goes on", func() bool {
				progress, err := p.Progress(t.Context())
				must(t, err)
				return s.seen()["a"] == 4 && s.seen()["b"] == 2 && progress[0].Error == ""
			})
		})
	}
}
