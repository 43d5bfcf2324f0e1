package eventstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/postgres"
)

// lead leads the projections until the end of the test.
func (s store) lead() *postgres.Lead {
	s.Helper()
	lead, err := postgres.Leader{DB: s.DB, Name: "projections"}.Try(s.Context())
	must(s, err)
	s.Cleanup(lead.Release)
	return lead
}

// seen is how many facts of each counter readers of the projection see.
func (s store) seen() map[string]int64 {
	s.Helper()
	var rows []total
	must(s, s.SelectContext(s.Context(), &rows, `SELECT name, version FROM totals`))
	seen := map[string]int64{}
	for _, r := range rows {
		seen[r.Name] = r.Version
	}
	return seen
}

// A rebuild that ends its window after the live table has moved on is not shown until it has as
// much.
func TestRebuiltProjectionIsNotShownBehindTheLiveOne(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	grow := func(head eventstore.Head, n int) eventstore.Head {
		head, err := s.append(streamOf("a"), head, facts("a", make([]int, n)...)...)
		must(t, err)
		return head
	}
	p := s.projector(s.DB, totals(1, sumUp))
	lead, totals := s.lead(), p.Projections[0]
	step := func(live bool) { p.Step(t, lead, totals, live, 0) }
	head := grow(eventstore.Head{}, 1500)
	step(true)
	step(true)
	must(t, p.Rebuild(t.Context(), "totals"))
	step(false)
	grow(head, 100)
	step(true)
	if n := s.seen()["a"]; n != 1600 {
		t.Fatalf("readers see %d facts, want all 1600", n)
	}
	step(false)
	if n := s.seen()["a"]; n != 1600 {
		t.Errorf("readers see %d facts after 1600", n)
	}
	if n := s.int(`SELECT generation FROM eventstore_projections WHERE live`); n != 2 {
		t.Error("the rebuilt one is not shown")
	}
}

// Under load the live table is always ahead when a window ends: the rebuild ends all the same.
func TestRebuildEndsAlthoughTheLiveOneMovesOn(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	p := s.projector(s.DB, totals(1, sumUp))
	lead := s.lead()
	head := s.grow("a", 12)
	must(t, p.Rebuild(t.Context(), "totals"))
	for round := 0; s.int(`SELECT generation FROM eventstore_projections WHERE live`) == 1; round++ {
		if round == 10 {
			t.Fatal("the rebuilt one is not shown")
		}
		var err error
		head, err = s.append(streamOf("a"), head, facts("a", 1, 2, 3, 4, 5, 6, 7)...)
		must(t, err)
		for range 4 {
			p.Step(t, lead, p.Projections[0], true, 5)
		}
		p.Step(t, lead, p.Projections[0], false, 5)
	}
}

// Whatever the order of appends, late commits, steps and rebuilds: readers never see less than
// before.
func TestReadersNeverGoBack(t *testing.T) {
	t.Parallel()
	for range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			fresh(t).walk(rand.New(rand.NewPCG(seed, 0)), 150)
		})
	}
}

// walk takes so many steps at random.
func (s store) walk(r *rand.Rand, steps int) {
	p := s.projector(s.DB, totals(1, sumUp))
	lead, projection := s.lead(), p.Projections[0]
	var late *sqlx.Tx // commits later, with an id that is early
	add := func(tx *sqlx.Tx, name string) {
		heads, err := eventstore.Heads(s.Context(), tx, streamOf(name))
		must(s, err)
		_, err = eventstore.Append(s.Context(), tx, streamOf(name), heads[streamOf(name)],
			facts(name, make([]int, 1+r.IntN(12))...)...)
		must(s, err)
	}
	var trail []string
	before, rebuilt := s.seen(), 0
	for range steps {
		op := []string{"append", "append", "begin", "commit", "live", "live", "build", "build", "build",
			"rebuild"}[r.IntN(10)]
		switch {
		case op == "append":
			tx := s.MustBegin()
			add(tx, fmt.Sprint("a", r.IntN(3)))
			must(s, tx.Commit())
		case op == "begin" && late == nil:
			late = s.MustBegin()
			add(late, "late")
		case op == "commit" && late != nil:
			must(s, late.Commit())
			late = nil
		case op == "live", op == "build":
			p.Step(s, lead, projection, op == "live", 1+r.IntN(9))
		case op == "rebuild" && r.IntN(3) == 0:
			must(s, p.Rebuild(s.Context(), "totals"))
			rebuilt++
		}
		trail = append(trail, op)
		now := s.seen()
		for name, n := range before {
			if now[name] < n {
				s.Fatalf("readers see %d facts of %s after %d; the way there: %v", now[name], name, n, trail)
			}
		}
		before = now
	}
	if late != nil {
		must(s, late.Commit())
	}
	s.run(p) // another leads: it waits for that
	lead.Release()
	s.settled()
	s.Logf("%d rebuilds, the last shown is generation %d", rebuilt, s.int(`SELECT max(generation)
		FROM eventstore_projections WHERE live`))
}
