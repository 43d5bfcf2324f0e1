package eventstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// reset is a type of event that only a newer release knows.
type reset struct {
	Counter string `json:"counter"`
}

func (reset) EventType() string { return "counter.reset" }
func (r reset) Subject() string { return r.Counter }

// newer is a later version of added.
type newer struct {
	Counter string `json:"counter"`
}

func (newer) EventType() string { return "counter.added" }
func (n newer) Subject() string { return n.Counter }
func (newer) Major() int        { return 2 }

// expectWait fails the test unless an error makes package consumer retry the event without an
// attempt, and without parking it.
func expectWait(t *testing.T, err error) {
	t.Helper()
	var later interface {
		error
		RetryAfter() time.Duration
	}
	if !errors.As(err, &later) || later.RetryAfter() < time.Second {
		t.Fatalf("the event does not wait after %v", err)
	}
	for _, parking := range []error{events.ErrMalformed, events.ErrUnknownType,
		events.ErrUnknownMajor} {
		if errors.Is(err, parking) {
			t.Errorf("the event would be parked for %v", err)
		}
	}
	if class := pg.ClassOf(err); class != pg.Other {
		t.Errorf("class %v of %v", class, err)
	}
}

// If a stored event cannot be read or was changed, the event being handled waits without an
// attempt. No reaction decides on such a stream, and other streams continue.
func TestUnreadableStreamCostsNoAttempt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fact     events.Payload // appended by a newer release
		damage   string
		mismatch int64 // the version of the MismatchError; 0: a StoredError
	}{
		"a type of a newer release":    {fact: reset{"a"}},
		"a version of a newer release": {fact: newer{"a"}},
		"a changed payload": {damage: `UPDATE eventstore
			SET payload = '{"counter":"a","n":400}' WHERE stream = 'counter/a' AND version = 4`,
			mismatch: 4},
		"a changed type": {damage: `UPDATE eventstore SET type = 'counter.reset'
			WHERE stream = 'counter/a' AND version = 2`, mismatch: 2},
		"headers that do not decode": {damage: `UPDATE eventstore SET headers = '[]'
			WHERE stream = 'counter/a' AND version = 5`, mismatch: 5},
		"half a hash": {damage: `UPDATE eventstore SET hash = 'x'
			WHERE stream = 'counter/a' AND version = 3`, mismatch: 3},
		"no time": {damage: `UPDATE eventstore SET recorded_at = 'infinity'
			WHERE stream = 'counter/a' AND version = 3`},
		"an event removed": {damage: `DELETE FROM eventstore WHERE stream = 'counter/a'
			AND version = 2`, mismatch: 2},
		"half a hash of the head": {damage: `UPDATE eventstore_streams SET hash = 'x'
			WHERE stream = 'counter/a'`},
		"the head removed": {damage: `DELETE FROM eventstore_streams
			WHERE stream = 'counter/a'`, mismatch: 6},
		"the head moved to another hash": {damage: `UPDATE eventstore_streams SET hash = sha256('x')
			WHERE stream = 'counter/a'`, mismatch: 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			head := s.grow("a", 6)
			if c.fact != nil {
				_, err := s.append("counter/a", head, events.Cause(events.Event{}, "/counters", now(), c.fact))
				must(t, err)
			}
			if c.damage != "" {
				s.exec(c.damage)
			}
			_, err := s.apply(s.DB, event(plus{"b", 1}), event(plus{"a", 1}))
			expectWait(t, err)
			mismatch, isMismatch := errors.AsType[*eventstore.MismatchError](err)
			if isMismatch != (c.mismatch > 0) || isMismatch && mismatch.Version != c.mismatch {
				t.Errorf("error %v, want a mismatch of event %d", err, c.mismatch)
			}
			if n := s.int(`SELECT count(*) FROM eventstore WHERE stream = 'counter/b' OR version > 6
				AND type = 'counter.added' AND headers ->> 'dataschema' LIKE '%:1'`); n != 0 {
				t.Error("a reaction decided on the stream")
			}
			if _, err := s.apply(s.DB, event(plus{"b", 1})); err != nil || s.sum("b") != 1 {
				t.Errorf("another stream: %v", err)
			}
		})
	}
}

// A snapshot that cannot be decoded is ignored and replaced.
func TestUndecodableSnapshotIsReplaced(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"half a hash":     `UPDATE eventstore_snapshots SET hash = 'x'`,
		"half a checksum": `UPDATE eventstore_snapshots SET sum = 'x'`,
		"a later event":   `UPDATE eventstore_snapshots SET version = 99`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			s.fill("a", 20)
			s.exec(damage)
			if s.sum("a") != 20 {
				t.Errorf("sum %d", s.sum("a"))
			}
			s.fill("a", 20)
			if n := s.int(`SELECT count(*) FROM eventstore_snapshots WHERE version IN (32, 40)
				AND length(hash) = 32 AND length(sum) = 32`); n != 1 {
				t.Error("the snapshot was not replaced")
			}
		})
	}
}

// A projection stops at a fact that only a newer release knows. It skips nothing, Progress has the
// reason, and it continues when a replica of that release leads. It ignores such facts in streams
// that it does not read.
func TestProjectionStopsAtAFactOfANewerRelease(t *testing.T) {
	t.Parallel()
	for name, fact := range map[string]events.Payload{"type": reset{"a"}, "version": newer{"a"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			_, err := s.append("other/a", eventstore.Head{}, events.Cause(events.Event{}, "/counters", now(),
				fact))
			must(t, err)
			old := totals(1, sumUp)
			old.Kinds = []string{"counter"}
			p := s.projector(s.DB, old)
			stop := s.run(p)
			head := s.grow("a", 3)
			s.waitFor("the projection has all facts", func() bool { return s.visible()["a"] == 3 })
			_, err = s.append("counter/a", head, events.Cause(events.Event{}, "/counters", now(), fact))
			must(t, err)
			s.waitFor("Progress has the reason", func() bool {
				progress, err := p.Progress(t.Context())
				must(t, err)
				return progress[0].Error != ""
			})
			s.grow("b", 2)
			if n := s.visible()["a"]; n != 3 {
				t.Errorf("the projection is at version %d, want 3", n)
			}
			stop()
			next := totals(1, func(rows *consumer.Rows[string, total], d eventstore.Decoded) {
				if _, ok := d.Data.(added); ok {
					sumUp(rows, d)
					return
				}
				rows.Set("a", total{"a", 0, d.Version, "", d.Time})
			})
			next.Kinds, next.Facts = old.Kinds, []events.Payload{added{}, reset{}}
			if name == "version" { // the samples of this test have no upcaster for the facts before it
				return
			}
			s.run(s.projector(s.DB, next))
			s.waitFor("the projection continues", func() bool {
				progress, err := p.Progress(t.Context())
				must(t, err)
				return s.visible()["a"] == 4 && s.visible()["b"] == 2 && progress[0].Error == ""
			})
		})
	}
}
