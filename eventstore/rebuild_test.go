package eventstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// lead leads the projections until the end of the test.
func (s store) lead() *pg.Lead {
	s.Helper()
	lead, err := pg.Leader{DB: s.DB, Name: "projections"}.Try(s.Context())
	must(s, err)
	s.Cleanup(lead.Release)
	return lead
}

// visible returns how many facts of each counter readers of the projection see.
func (s store) visible() map[string]int64 {
	s.Helper()
	var rows []total
	must(s, s.SelectContext(s.Context(), &rows, `SELECT name, version FROM totals`))
	seen := map[string]int64{}
	for _, r := range rows {
		seen[r.Name] = r.Version
	}
	return seen
}

// A rebuild that reaches the end of its window after the live table has advanced is not shown
// before it has applied as many facts.
func TestRebuiltProjectionIsNotShownBehindTheLiveOne(t *testing.T) {
	t.Parallel()
	s := newStore(t)
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
	if n := s.visible()["a"]; n != 1600 {
		t.Fatalf("readers see %d facts, want all 1600", n)
	}
	step(false)
	if n := s.visible()["a"]; n != 1600 {
		t.Errorf("readers see %d facts after 1600", n)
	}
	if n := s.int(`SELECT generation FROM eventstore_projections WHERE live`); n != 2 {
		t.Error("readers do not see the rebuilt projection")
	}
}

// Under load the live table is always ahead at the end of a window, and the rebuild still finishes.
func TestRebuildFinishesWhileTheLiveOneAdvances(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	p := s.projector(s.DB, totals(1, sumUp))
	lead := s.lead()
	head := s.grow("a", 12)
	must(t, p.Rebuild(t.Context(), "totals"))
	for round := 0; s.int(`SELECT generation FROM eventstore_projections WHERE live`) == 1; round++ {
		if round == 10 {
			t.Fatal("readers do not see the rebuilt projection after 10 rounds")
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

// In every order of appends, late commits, steps and rebuilds, readers never see fewer facts than
// before.
func TestReadersNeverGoBack(t *testing.T) {
	t.Parallel()
	for range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			newStore(t).randomSteps(rand.New(rand.NewPCG(seed, 0)), 150)
		})
	}
}

// randomSteps runs count random steps and checks after each what readers see.
func (s store) randomSteps(r *rand.Rand, count int) {
	p := s.projector(s.DB, totals(1, sumUp))
	lead, projection := s.lead(), p.Projections[0]
	var late *sqlx.Tx // has an early id and commits late
	add := func(tx *sqlx.Tx, name string) {
		heads, err := eventstore.Heads(s.Context(), tx, streamOf(name))
		must(s, err)
		_, err = eventstore.Append(s.Context(), tx, streamOf(name), heads[streamOf(name)],
			facts(name, make([]int, 1+r.IntN(12))...)...)
		must(s, err)
	}
	var steps []string
	before, rebuilt := s.visible(), 0
	for range count {
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
		steps = append(steps, op)
		now := s.visible()
		for name, n := range before {
			if now[name] < n {
				s.Fatalf("readers see %d facts of %s after %d; steps: %v", now[name], name, n, steps)
			}
		}
		before = now
	}
	if late != nil {
		must(s, late.Commit())
	}
	s.run(p) // it leads after the release below
	lead.Release()
	s.waitCaughtUp()
	s.Logf("%d rebuilds, the last shown is generation %d", rebuilt, s.int(`SELECT max(generation)
		FROM eventstore_projections WHERE live`))
}
