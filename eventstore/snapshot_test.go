package eventstore_test

import (
	"errors"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/engine"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// state is the working set of a participant with counters.
type state struct {
	Counters eventstore.Streams[counter] `table:"counter" key:"name"`
}

// plus is the command to add to a counter. A sum above a thousand is refused, without an event.
type plus struct {
	Name string
	N    int
}

func (plus) EventType() string { return "counter.plus" }
func (p plus) Subject() string { return p.Name }

var participant = consumer.Participant[state]{
	Name:  "counters",
	Locks: func(s *state, e events.Event) { s.Counters.Lock(e.Data.Subject()) },
	React: []consumer.Reaction[state]{consumer.On(func(s *state, e events.Of[plus]) (consumer.Effects,
		error) {
		if c, _ := s.Counters.Get(e.Data.Name); c.Sum+e.Data.N <= 1000 {
			s.Counters.Record(e.Event, added{e.Data.Name, e.Data.N})
		}
		return consumer.Effects{}, nil
	})},
}

// apply runs commands in one transaction and repeats it while another transaction is first. It
// returns the number of repetitions.
func (s store) apply(db *sqlx.DB, batch ...events.Event) (retries int, err error) {
	runner := engine.New(engine.Config{Service: engine.Service{Name: participant.Name}})
	for ; ; retries++ {
		err = pg.InTx(s.Context(), db, func(tx *sqlx.Tx) error {
			_, _, err := consumer.Apply(s.Context(), runner, tx, participant, batch...)
			return err
		})
		if pg.ClassOf(err) != pg.Retry {
			return retries, err
		}
	}
}

// fill adds n events to a counter, in batches.
func (s store) fill(name string, n int) {
	s.Helper()
	for n > 0 {
		size := min(n, 10)
		var batch []events.Event
		for range size {
			batch = append(batch, event(plus{name, 1}))
		}
		_, err := s.apply(s.DB, batch...)
		must(s, err)
		n -= size
	}
}

func event(p events.Payload) events.Event {
	return events.Cause(events.Event{}, "/counters", now(), p)
}

// A snapshot is taken every 16 events. It is used: the fold succeeds without the events that it
// covers.
func TestSnapshotIsTakenAndUsed(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.fill("a", 10)
	if n := s.int(`SELECT count(*) FROM eventstore_snapshots`); n != 0 {
		t.Errorf("%d snapshots after 10 events", n)
	}
	s.fill("a", 60)
	if n := s.int(`SELECT version FROM eventstore_snapshots WHERE stream = 'counter/a'`); n != 70 {
		t.Errorf("snapshot of version %d", n)
	}
	s.fill("a", 5)
	s.exec(`DELETE FROM eventstore WHERE version < 70`)
	if s.sum("a") != 75 {
		t.Errorf("sum %d", s.sum("a"))
	}
	if _, err := eventstore.Replay[counter](t.Context(), s, "counter/a"); err == nil {
		t.Error("the replay succeeds without the first events")
	}
	s.fill("a", 65)
	if n := s.int(`SELECT version FROM eventstore_snapshots WHERE stream = 'counter/a'`); n != 130 &&
		n != 135 && n != 140 {
		t.Errorf("the snapshot stays at version %d", n)
	}
}

// An invalid snapshot is ignored, and the next one replaces it.
func TestInvalidSnapshotIsIgnored(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"corrupt state":      `UPDATE eventstore_snapshots SET state = '{"name":"a","sum":1}'`,
		"half a state":       `UPDATE eventstore_snapshots SET state = left(state, 5)`,
		"another version":    `UPDATE eventstore_snapshots SET version = 69`,
		"another fold":       `UPDATE eventstore_snapshots SET fold = 7`,
		"of another history": `UPDATE eventstore_snapshots SET hash = sha256('x')`,
		"of another stream": `UPDATE eventstore_snapshots AS s SET version = o.version,
			state = o.state, hash = o.hash, sum = o.sum FROM eventstore_snapshots AS o
				WHERE o.stream = 'counter/b' AND s.stream = 'counter/a'`,
		"the cache is emptied":   `TRUNCATE eventstore_snapshots`,
		"state that is not JSON": `UPDATE eventstore_snapshots SET state = 'null null'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			s.fill("a", 70)
			s.fill("b", 80)
			s.exec(damage)
			if s.sum("a") != 70 || s.sum("b") != 80 {
				t.Errorf("sums %d, %d", s.sum("a"), s.sum("b"))
			}
			s.fill("a", 60) // past the next snapshot
			if n := s.int(`SELECT count(*) FROM eventstore_snapshots WHERE stream = 'counter/a'
				AND version = 130 AND fold = 1 AND state = '{"name":"a","sum":130}'`); n != 1 {
				t.Errorf("the snapshot was not replaced")
			}
		})
	}
}

// doubledCounter is a counter whose fold has changed.
type doubledCounter struct{ Doubled int }

func (l doubledCounter) Fold(p events.Payload) doubledCounter {
	return doubledCounter{l.Doubled + 2*p.(added).N}
}
func (doubledCounter) FoldVersion() int        { return 2 }
func (doubledCounter) Facts() []events.Payload { return []events.Payload{added{}} }

func TestChangedFoldDiscardsSnapshots(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.fill("a", 70)
	found, err := eventstore.Fold[doubledCounter](t.Context(), s, "counter/a")
	must(t, err)
	if f := found["counter/a"]; f.State.Doubled != 140 || f.Version != 70 {
		t.Errorf("folded %+v", f)
	}
}

// A snapshot from before a restore is ignored: its checksum is right, but its event is another one.
func TestSnapshotOfAnotherHistoryIsIgnored(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.fill("a", 70)
	s.exec(`CREATE TABLE kept AS SELECT * FROM eventstore_snapshots`)
	s.exec(`TRUNCATE eventstore, eventstore_streams, eventstore_snapshots`)
	for range 71 {
		_, err := s.apply(s.DB, event(plus{"a", 2}))
		must(t, err)
	}
	s.exec(`TRUNCATE eventstore_snapshots; INSERT INTO eventstore_snapshots SELECT * FROM kept`)
	if s.sum("a") != 142 {
		t.Errorf("sum %d, want that of the events", s.sum("a"))
	}
}

// Two replicas write to one stream, first when it does not exist yet and then when it does. No
// update is lost.
func TestTwoReplicasOnOneStreamLoseNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	other := pool(t, s.url)
	retries := 0
	for round := range 30 {
		name := string(rune('a' + round%26))
		results := make(chan int)
		for _, db := range []*sqlx.DB{s.DB, other} {
			go func() {
				n, err := s.apply(db, event(plus{name, 1}))
				if err != nil {
					t.Error(err)
				}
				results <- n
			}()
		}
		retries += <-results + <-results
	}
	if n := s.int(`SELECT sum(version) FROM eventstore_streams`); n != 60 {
		t.Errorf("%d events", n)
	}
	t.Logf("%d retries", retries)
}

// Of two concurrent commands that together exceed the limit, one is refused.
func TestOfTwoConflictingCommandsOneIsRefused(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	other := pool(t, s.url)
	for round := range 20 {
		name := string(rune('a' + round))
		done := make(chan error)
		for _, db := range []*sqlx.DB{s.DB, other} {
			go func() {
				_, err := s.apply(db, event(plus{name, 600}))
				done <- err
			}()
		}
		must(t, errors.Join(<-done, <-done))
		if s.sum(name) != 600 {
			t.Fatalf("sum %d, want 600: both commands were applied", s.sum(name))
		}
	}
}

// Load checks the events against the head, so that no reaction decides on a truncated stream.
func TestTruncatedStreamIsNotUsed(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.fill("a", 10)
	s.exec(`DELETE FROM eventstore WHERE version = 10`)
	_, err := s.apply(s.DB, event(plus{"a", 1}))
	if mismatch, ok := errors.AsType[*eventstore.MismatchError](err); !ok ||
		mismatch.Stream != "counter/a" {
		t.Errorf("error %v", err)
	}
}

func TestMemoryKeepsTheState(t *testing.T) {
	m := consumer.Memory{}
	for range 3 {
		if _, _, err := participant.ApplyTo(m, event(plus{"a", 2})); err != nil {
			t.Fatal(err)
		}
	}
	var c counter
	if ok, err := m.Row("counter", "a", &c); !ok || err != nil || c.Sum != 6 {
		t.Errorf("%+v, %v, %v", c, ok, err)
	}
	wrong := participant
	wrong.Locks = func(*state, events.Event) {}
	if _, _, err := wrong.ApplyTo(m, event(plus{"a", 2})); err == nil {
		t.Error("a counter that was not locked was changed")
	}
}
