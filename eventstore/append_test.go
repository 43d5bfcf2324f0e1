package eventstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/pg"
)

func TestAppendFollowsTheExpectedVersion(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	one, err := s.append("counter/a", eventstore.Head{}, facts("a", 1, 2)...)
	must(t, err)
	two, err := s.append("counter/a", one, fact("a", 3))
	must(t, err)
	if one.Version != 2 || two.Version != 3 {
		t.Errorf("heads %d, %d", one.Version, two.Version)
	}
	forged := two
	forged.Hash[0]++
	for name, expected := range map[string]eventstore.Head{
		"none":          {},
		"an older one":  one,
		"a later one":   {Version: 5, Hash: two.Hash}, // an append after it would leave a gap
		"another hash":  forged,
		"none, by hash": {Hash: two.Hash},
	} {
		_, err := s.append("counter/a", expected, fact("a", 9))
		conflict, ok := errors.AsType[*eventstore.Conflict](err)
		if !ok || *conflict != (eventstore.Conflict{Stream: "counter/a", Expected: expected.Version,
			Actual: 3}) {
			t.Errorf("%s: %v", name, err)
		}
		if pg.ClassOf(err) != pg.Retry {
			t.Errorf("%s: class %v", name, pg.ClassOf(err))
		}
	}
	if _, err := s.append("counter/b", eventstore.Head{Version: 1}, fact("b", 9)); !errors.Is(err,
		pg.ErrRaced) {
		t.Errorf("append after an event that does not exist: %v", err)
	}
	if n := s.int(`SELECT count(*) FROM eventstore`); n != 3 {
		t.Errorf("%d events", n)
	}
	read, err := eventstore.Read(t.Context(), s, "counter/a", 1, 10)
	must(t, err)
	if len(read) != 2 || read[0].Version != 2 || read[1].Version != 3 || read[1].Hash != two.Hash {
		t.Errorf("read %+v", read)
	}
	e, err := read[1].Open(events.NewCatalogue(added{}))
	if err != nil || e.Data != (added{"a", 3}) || e.Source != "/counters" {
		t.Errorf("opened %+v, %v", e, err)
	}
}

// An append that is refused leaves the transaction usable, and its other writes are committed.
func TestConflictDoesNotBreakTheTransaction(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	head := s.grow("a", 1)
	must(t, pg.InTx(t.Context(), s.DB, func(tx *sqlx.Tx) error {
		if _, err := eventstore.Append(t.Context(), tx, "counter/a", eventstore.Head{},
			fact("a", 2)); !errors.Is(err, pg.ErrRaced) {
			t.Errorf("error %v", err)
		}
		_, err := eventstore.Append(t.Context(), tx, "counter/a", head, fact("a", 3))
		return err
	}))
	if s.sum("a") != 4 {
		t.Errorf("sum %d", s.sum("a"))
	}
}

func TestManyStreamsInOneStatement(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	a := s.grow("a", 2)
	all := []eventstore.Appending{{Stream: "counter/b", Facts: facts("b", 1, 2)},
		{Stream: "counter/a", Expected: a, Facts: facts("a", 3)},
		{Stream: "counter/c", Facts: facts("c", 5)}}
	appendAll := func() (heads []eventstore.Head, err error) {
		err = pg.InTx(t.Context(), s.DB, func(tx *sqlx.Tx) error {
			heads, err = eventstore.AppendAll(t.Context(), tx, all...)
			return err
		})
		return heads, err
	}
	heads, err := appendAll()
	if err != nil || heads[0].Version != 2 || heads[1].Version != 3 || heads[2].Version != 1 {
		t.Errorf("heads %v, %v", heads, err)
	}
	all[0].Expected, all[2].Expected = heads[0], heads[2] // a is stale
	_, err = appendAll()
	if c, ok := errors.AsType[*eventstore.Conflict](err); !ok ||
		*c != (eventstore.Conflict{Stream: "counter/a", Expected: 2, Actual: 3}) {
		t.Errorf("error %v", err)
	}
	if s.sum("a") != 6 || s.sum("b") != 3 || s.sum("c") != 5 {
		t.Errorf("sums %d, %d, %d", s.sum("a"), s.sum("b"), s.sum("c"))
	}
}

func TestInvalidAppendIsRefusedWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for name, appending := range map[string][]eventstore.Appending{
		"no stream": {{Facts: facts("a", 1)}},
		"no events": {{Stream: "counter/a"}},
		"a stream twice": {{Stream: "counter/a", Facts: facts("a", 1)},
			{Stream: "counter/a", Facts: facts("a", 1)}},
		"no subject": {{Stream: "counter/a", Facts: facts("", 1)}},
	} {
		_, err := eventstore.AppendAll(t.Context(), nil, appending...)
		if err == nil || !strings.Contains(err.Error(), "append events") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_ = s
}

// Concurrent writers that append after the head they have read lose no event, and every stream is
// numbered 1, 2, 3 …
func TestWritersOnOneStreamLoseNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const writers, each = 8, 25
	var running sync.WaitGroup
	for w := range writers {
		running.Go(func() {
			for i := range each {
				if err := s.add(t.Context(), fmt.Sprint(i%2), 1+w); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	if sum := s.sum("0") + s.sum("1"); sum != each*writers*(writers+1)/2 {
		t.Errorf("sum %d", sum)
	}
	if n := s.int(`SELECT count(*) FROM (SELECT version <> row_number() OVER (PARTITION BY stream
		ORDER BY version) AS gap FROM eventstore) v WHERE gap`); n != 0 {
		t.Errorf("%d events have a version after a gap", n)
	}
	for _, name := range []string{"0", "1"} {
		if n, err := eventstore.Verify(t.Context(), s, streamOf(name)); err != nil ||
			int(n) != s.int(`SELECT version FROM eventstore_streams WHERE stream = $1`, streamOf(name)) {
			t.Errorf("verified %d, %v", n, err)
		}
	}
}
