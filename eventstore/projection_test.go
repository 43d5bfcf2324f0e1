package eventstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// total is a row of the projection under test: the sum of a counter, and the versions of its facts
// in the order in which they were applied.
type total struct {
	Name     string    `db:"name"`
	Sum      int       `db:"sum"`
	Version  int64     `db:"version"`
	Versions string    `db:"versions"`
	At       time.Time `db:"at"`
}

func totals(version int, fold func(*consumer.Rows[string, total],
	eventstore.Decoded)) eventstore.Projection {
	return eventstore.Project(eventstore.Projection{
		Name: "totals", Key: "name", Version: version, Facts: []events.Payload{added{}},
		Columns: `name text PRIMARY KEY, sum bigint NOT NULL, version bigint NOT NULL,
			versions text NOT NULL, at timestamptz NOT NULL`,
	}, func(d eventstore.Decoded) []string { return []string{d.Data.Subject()} }, fold)
}

func sumUp(rows *consumer.Rows[string, total], d eventstore.Decoded) {
	t, _ := rows.Get(d.Data.Subject())
	rows.Set(d.Data.Subject(), total{d.Data.Subject(), t.Sum + d.Data.(added).N, d.Version,
		fmt.Sprint(t.Versions, " ", d.Version), d.Time})
}

// projector returns the prepared projector of one replica.
func (s store) projector(db *sqlx.DB, projections ...eventstore.Projection) *eventstore.Projector {
	s.Helper()
	p := &eventstore.Projector{DB: db, Projections: projections,
		Log: zerolog.New(zerolog.NewTestWriter(s))}
	must(s, p.Prepare(s.Context()))
	return p
}

// run runs a projector until stop is called or the test ends.
func (s store) run(p *eventstore.Projector) (stop func()) {
	ctx, cancel := context.WithCancel(s.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	s.Cleanup(stop)
	return stop
}

// dump returns the rows of a table as text.
func (s store) dump(table string) (text string) {
	s.Helper()
	must(s, s.GetContext(s.Context(), &text, `SELECT coalesce(string_agg(t::text, E'\n' ORDER BY name),
		'') FROM `+table+` AS t`))
	return text
}

// waitCaughtUp waits until the projection has every fact, and compares its rows with the folds.
func (s store) waitCaughtUp() {
	s.Helper()
	s.waitFor("the projection has all facts", func() bool {
		return s.int(`SELECT count(*) FROM eventstore_streams AS s LEFT JOIN totals AS t
			ON s.stream = 'counter/' || t.name WHERE t.version IS DISTINCT FROM s.version`) == 0
	})
	var rows []total
	must(s, s.SelectContext(s.Context(), &rows, `SELECT * FROM totals`))
	for _, r := range rows {
		versions := ""
		for v := range r.Version {
			versions += fmt.Sprint(" ", v+1)
		}
		if r.Sum != s.sum(r.Name) || r.Versions != versions {
			s.Errorf("%s: projected %+v, folded %d", r.Name, r, s.sum(r.Name))
		}
	}
}

// writers starts n writers that add to counters until stop is called. Their transactions wait
// before the end and some roll back, so that they commit in another order than they inserted.
func (s store) writers(n int) (stop func()) {
	ctx, cancel := context.WithCancel(s.Context())
	var running sync.WaitGroup
	for w := range n {
		db := pool(s, s.url)
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprint(w, "-", i%3)
				err := pg.InTx(s.Context(), db, func(tx *sqlx.Tx) error {
					if _, err := tx.Exec(`SELECT pg_current_xact_id()`); err != nil { // an early id
						return err
					}
					found, err := eventstore.Fold[counter](s.Context(), tx, streamOf(name))
					if err != nil {
						return err
					}
					if _, err := eventstore.Append(s.Context(), tx, streamOf(name), found[streamOf(name)].Head,
						facts(name, i, 1)...); err != nil {
						return err
					}
					if _, err := tx.Exec(`SELECT pg_sleep($1)`, rand.Float64()*0.02); err != nil {
						return err
					}
					if i%7 == 3 {
						return errRollback
					}
					return nil
				})
				if err != nil && err != errRollback {
					s.Error(err)
					return
				}
			}
		})
	}
	return func() { cancel(); running.Wait() }
}

var errRollback = fmt.Errorf("rolled back on purpose")

// A reader of all streams that continues from its stored checkpoint misses no fact, reads none
// twice, and reads each stream in order.
func TestReadAllMissesNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	stop := s.writers(6)
	s.exec(
		`CREATE TABLE place (a text, b text, last_seq bigint); INSERT INTO place VALUES ('', '', 0)`)
	versions := map[string]int64{}
	read := func() (n int) {
		var at struct {
			A, B string
			Last int64 `db:"last_seq"`
		}
		must(t, s.Get(&at, `SELECT * FROM place`))
		got, to, err := eventstore.ReadAll(t.Context(), s,
			eventstore.Checkpoint{A: pg.Snapshot(at.A), B: pg.Snapshot(at.B), LastSeq: at.Last})
		must(t, err)
		for _, f := range got {
			if f.Version != versions[f.Stream]+1 {
				t.Fatalf("event %d of stream %s comes after %d", f.Version, f.Stream, versions[f.Stream])
			}
			versions[f.Stream] = f.Version
		}
		s.exec(`UPDATE place SET a = $1, b = $2, last_seq = $3`, string(to.A), string(to.B), to.LastSeq)
		return len(got)
	}
	s.waitFor("many facts were read", func() bool {
		read()
		return len(versions) == 18 && versions["counter/0-0"] > 60
	})
	stop()
	for n := 1; n > 0; {
		n = read()
	}
	for stream, version := range versions {
		if n := s.int(`SELECT version FROM eventstore_streams WHERE stream = $1`,
			stream); n != int(version) {
			t.Errorf("%s: %d of %d facts were read", stream, version, n)
		}
	}
}

// One window has more facts than one read returns.
func TestReadAllContinuesWithinAWindow(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var all []events.Event
	for i := range 2500 {
		all = append(all, fact("a", i))
	}
	_, err := s.append("counter/a", eventstore.Head{}, all...)
	must(t, err)
	for _, c := range []struct {
		read func(context.Context, sqlx.QueryerContext, eventstore.Checkpoint) ([]eventstore.Fact,
			eventstore.Checkpoint, error)
		want    []int
		windows int // how often a window is read, including the last, empty one
	}{
		{eventstore.ReadAll, []int{1000, 1000, 500, 0}, 4},
		{eventstore.ContinuingReader(10_000), []int{1000, 1000, 500, 0}, 2},
		{eventstore.ContinuingReader(1200), []int{1000, 200, 1000, 200, 100, 0}, 4},
	} {
		q := &countingQueryer{QueryerContext: s}
		var checkpoint eventstore.Checkpoint
		var last int64
		for _, want := range c.want {
			var got []eventstore.Fact
			got, checkpoint, err = c.read(t.Context(), q, checkpoint)
			if err != nil || len(got) != want {
				t.Fatalf("read %d, %v; want %d", len(got), err, want)
			}
			for _, f := range got {
				if f.Version != last+1 {
					t.Fatalf("version %d after %d", f.Version, last)
				}
				last = f.Version
			}
		}
		if q.windows != c.windows {
			t.Errorf("the window was read %d times, want %d", q.windows, c.windows)
		}
	}
}

// countingQueryer counts the queries that read a window.
type countingQueryer struct {
	sqlx.QueryerContext
	windows int
}

func (c *countingQueryer) QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows,
	error) {
	if strings.Contains(query, "pg_visible_in_snapshot") {
		c.windows++
	}
	return c.QueryerContext.QueryxContext(ctx, query, args...)
}

// Two replicas, whose leader changes, rebuild a projection twice during live traffic. Readers never
// see fewer facts than before, and without traffic a rebuild gives exactly the same table.
func TestProjectionIsRebuiltDuringLiveTraffic(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	first := s.projector(s.DB, totals(1, sumUp))
	stopFirst := s.run(first)
	s.run(s.projector(pool(t, s.url), totals(1, sumUp)))
	stop := s.writers(4)
	var lowest atomic.Int64
	watch, unwatch := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		for watch.Err() == nil {
			var sum int64
			if err := s.Get(&sum, `SELECT coalesce(sum(version), 0) FROM totals`); err != nil {
				t.Error(err)
				return
			}
			if sum < lowest.Swap(sum) {
				t.Errorf("readers saw %d facts after more", sum)
			}
		}
	})
	for range 2 {
		seen := lowest.Load()
		s.waitFor("readers see more", func() bool { return lowest.Load() > seen+50 })
		before := s.int(`SELECT generation FROM eventstore_projections WHERE live`)
		must(t, first.Rebuild(t.Context(), "totals"))
		progress, err := first.Progress(t.Context())
		if must(t, err); len(progress) > 2 || progress[0].Of < progress[0].Done || progress[0].Done == 0 {
			t.Errorf("progress %+v", progress)
		}
		s.waitFor("readers see the rebuilt projection", func() bool {
			return s.int(`SELECT generation FROM eventstore_projections WHERE live`) > before
		})
		stopFirst() // the second call does nothing
	}
	stop()
	s.waitCaughtUp()
	unwatch()
	watching.Wait()
	before := s.dump("totals")
	must(t, first.Rebuild(t.Context(), "totals"))
	s.waitFor("readers see the third rebuild", func() bool {
		return s.int(`SELECT count(*) * max(generation)
		FROM eventstore_projections`) == 4
	})
	if after := s.dump("totals"); after != before {
		t.Errorf("rebuilt:\n%s\nbefore:\n%s", after, before)
	}
	if n := s.int(`SELECT count(*) FROM pg_tables WHERE tablename LIKE 'totals%'`); n != 1 {
		t.Errorf("%d tables are left", n)
	}
}

// A projection with a new version is rebuilt automatically, and readers see it when it has caught
// up.
func TestChangedProjectionIsRebuilt(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.fill("a", 30)
	stop := s.run(s.projector(s.DB, totals(1, sumUp)))
	s.waitCaughtUp()
	stop()
	s.run(s.projector(s.DB, totals(2, func(rows *consumer.Rows[string, total], d eventstore.Decoded) {
		sumUp(rows, d)
		t, _ := rows.Get(d.Data.Subject())
		rows.Set(t.Name, total{t.Name, -int(t.Version), t.Version, t.Versions, t.At})
	})))
	s.waitFor("readers see the changed projection",
		func() bool { return s.int(`SELECT sum FROM totals`) == -30 })
}

// If the function of a projection panics, exits or hangs at a fact, this projection stops at the
// fact and skips nothing. Other projections continue.
func TestFailingProjectionStopsNoOther(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]func(repaired chan struct{}){
		"panics": func(chan struct{}) { panic("seven") },
		"exits":  func(chan struct{}) { runtime.Goexit() },
		"hangs":  func(repaired chan struct{}) { <-repaired },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			repaired := make(chan struct{})
			var runs atomic.Int64
			stuck := eventstore.Project(eventstore.Projection{
				Name: "stuck", Key: "name", Version: 1, Facts: []events.Payload{added{}},
				Columns: `name text PRIMARY KEY, sum bigint NOT NULL, version bigint NOT NULL,
			versions text NOT NULL, at timestamptz NOT NULL`,
			}, func(d eventstore.Decoded) []string { return []string{d.Data.Subject()} },
				func(rows *consumer.Rows[string, total], d eventstore.Decoded) {
					select {
					case <-repaired:
					default:
						if d.Version == 7 {
							runs.Add(1)
							bad(repaired)
						}
					}
					sumUp(rows, d)
				})
			s.run(s.projector(s.DB, stuck, totals(1, sumUp)))
			s.fill("a", 20)
			s.waitFor("the other projection continues", func() bool {
				return s.int(`SELECT coalesce(max(version), 0)
				FROM totals`) == 20
			})
			if n := s.int(`SELECT coalesce(max(version), 0) FROM stuck`); n >= 7 {
				t.Errorf("the failing projection is at version %d, beyond its fact", n)
			}
			if n := runs.Load(); name == "hangs" && n > 1 {
				t.Errorf("%d runs of the function hang", n)
			}
			close(repaired)
			s.waitFor("the repaired projection continues",
				func() bool { return s.int(`SELECT coalesce(max(version), 0) FROM stuck`) == 20 })
			if a, b := s.dump("stuck"), s.dump("totals"); a != b {
				t.Errorf("%s\n%s", a, b)
			}
		})
	}
}

func TestInvalidProjectionIsRefused(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for name, p := range map[string]eventstore.Projection{
		"not made by Project": {Name: "totals", Version: 1},
		"a name to inject":    {Name: "totals; DROP TABLE eventstore", Version: 1},
		"no version":          totals(0, sumUp),
	} {
		if err := (&eventstore.Projector{DB: s.DB, Projections: []eventstore.Projection{p}}).Prepare(
			t.Context()); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	if err := s.projector(s.DB, totals(1, sumUp)).Rebuild(t.Context(), "others"); err == nil {
		t.Error("a projection that does not exist is rebuilt")
	}
}

// In a rolling upgrade the leader may be of the previous release. It does not fill a projection of
// another version, and does not rebuild its own.
func TestLeaderOfAnotherReleaseLeavesAProjectionAlone(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.fill("a", 30)
	stopOld := s.run(s.projector(s.DB, totals(1, sumUp)))
	s.waitCaughtUp()
	negative := totals(2, func(rows *consumer.Rows[string, total], d eventstore.Decoded) {
		t, _ := rows.Get(d.Data.Subject())
		rows.Set(d.Data.Subject(), total{d.Data.Subject(), t.Sum - d.Data.(added).N, d.Version, "",
			d.Time})
	})
	s.projector(s.DB, negative)         // a replica of the next release has started
	s.projector(s.DB, totals(1, sumUp)) // and one of the old release has started again
	s.fill("b", 10)
	s.waitFor("the old leader has applied new facts", func() bool {
		return s.int(`SELECT count(*) FROM totals
		WHERE name = 'b' AND version = 10`) == 1
	})
	if n := s.int(`SELECT count(*) FROM eventstore_projections WHERE version = 2 AND NOT live
		AND done = 0`); n != 1 {
		t.Error("the old leader has changed the projection of the next release")
	}
	stopOld()
	s.run(s.projector(s.DB, negative))
	s.waitFor("readers see the new version",
		func() bool { return s.int(`SELECT sum FROM totals WHERE name = 'a'`) == -30 })
}

// Facts that were read from a stale checkpoint are not applied, since the projection may have been
// reset meanwhile.
func TestStaleCheckpointIsNotSaved(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.fill("a", 10)
	p := s.projector(s.DB, totals(1, sumUp))
	lead, err := pg.Leader{DB: s.DB, Name: "projections"}.Try(t.Context())
	must(t, err)
	defer lead.Release()
	stale := eventstore.LatestGeneration(t, p)
	if _, err := p.Advance(t.Context(), lead, p.Projections[0], stale); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Advance(t.Context(), lead, p.Projections[0], stale); err == nil {
		t.Error("the same facts were applied twice")
	}
	if n := s.int(`SELECT sum FROM totals`); n != 10 {
		t.Errorf("sum %d", n)
	}
}

// A rebuilt projection is shown at the end of its window, without a further look for new facts,
// since under load there always are some.
func TestRebuiltProjectionIsShownUnderLoad(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.fill("a", 10)
	p := s.projector(s.DB, totals(1, sumUp))
	lead, err := pg.Leader{DB: s.DB, Name: "projections"}.Try(t.Context())
	must(t, err)
	defer lead.Release()
	must(t, p.Rebuild(t.Context(), "totals"))
	if _, err := p.Advance(t.Context(), lead, p.Projections[0], eventstore.LatestGeneration(t,
		p)); err != nil {
		t.Fatal(err)
	}
	if n := s.int(`SELECT sum FROM totals`); n != 10 {
		t.Errorf("readers see a sum of %d", n)
	}
	if n := s.int(
		`SELECT count(*) FROM eventstore_projections WHERE live AND generation = 2`); n != 1 {
		t.Error("readers do not see the rebuilt projection")
	}
}
