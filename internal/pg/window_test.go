package pg_test

import (
	"context"
	"slices"
	"testing"

	"github.com/jmoiron/sqlx"
	"pgregory.net/rapid"

	"github.com/quadrille-go/quadrille/internal/pg"
)

const entries = pg.Log("entries")

func snapshot(t testing.TB, db sqlx.QueryerContext) pg.Snapshot {
	t.Helper()
	s, err := pg.Now(t.Context(), db)
	must(t, err)
	return s
}

func createLog(t *testing.T, db *sqlx.DB) {
	t.Helper()
	exec(t, db, `CREATE TABLE entries (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		txid xid8 NOT NULL DEFAULT pg_current_xact_id())`)
	exec(t, db, `CREATE INDEX ON entries (txid, seq)`)
}

// history has a log, the transactions that write to it, and the rows that its windows should
// contain.
type history struct {
	t       *rapid.T
	db      *sqlx.DB
	running []writer
	left    pg.Snapshot // left edge of the next window
	right   pg.Snapshot // its right edge, if that has been taken
	between []int64     // committed between the two
	after   []int64     // committed after them
}

type writer struct {
	tx   *sqlx.Tx
	seqs []int64
}

func (h *history) must(err error) {
	if err != nil {
		h.t.Fatal(err)
	}
}

// window takes the right edge of a window, or reads the window if its edge has been taken before.
func (h *history) window() {
	var err error
	if h.right == "" {
		h.right, err = pg.Now(context.Background(), h.db)
		h.must(err)
		h.between, h.after = h.after, nil
		return
	}
	limit := rapid.IntRange(1, 20).Draw(h.t, "most")
	var seqs []int64
	for last, more := int64(0), true; more; {
		var some []int64
		some, more, err = entries.Window(context.Background(), h.db, h.left, h.right, last, limit)
		h.must(err)
		if len(some) > limit || more && len(some) < limit {
			h.t.Fatalf("%d rows, limit %d, more %t", len(some), limit, more)
		}
		if seqs = append(seqs, some...); more {
			last = some[len(some)-1]
		}
	}
	slices.Sort(h.between)
	if !slices.Equal(seqs, h.between) {
		h.t.Fatalf("window %s to %s has %v, want the rows committed in between: %v", h.left, h.right,
			seqs, h.between)
	}
	h.left, h.right, h.between = h.right, "", nil
}

func (h *history) step(what string) {
	if what == "window" {
		h.window()
		return
	}
	if what == "begin" || len(h.running) == 0 {
		if len(h.running) < 6 {
			tx, err := h.db.BeginTxx(context.Background(), nil)
			h.must(err)
			h.running = append(h.running, writer{tx: tx})
		}
		return
	}
	i := rapid.IntRange(0, len(h.running)-1).Draw(h.t, "transaction")
	w := &h.running[i]
	switch what {
	case "get an id":
		_, err := w.tx.Exec(`SELECT pg_current_xact_id()`)
		h.must(err)
		return
	case "insert":
		var seq int64
		h.must(w.tx.Get(&seq, `INSERT INTO entries DEFAULT VALUES RETURNING seq`))
		w.seqs = append(w.seqs, seq)
		return
	case "commit":
		h.must(w.tx.Commit())
		h.after = append(h.after, w.seqs...)
	case "roll back":
		h.must(w.tx.Rollback())
	}
	h.running = slices.Delete(h.running, i, i+1)
}

// In every order in which transactions begin, write, commit and roll back, consecutive windows
// contain each committed row exactly once, in the window in which it became visible.
func TestWindowsHoldEachRowOnce(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	createLog(t, db)
	left := pg.Beginning
	steps := rapid.SampledFrom([]string{"window", "begin", "insert", "commit", "insert", "get an id",
		"window", "commit", "roll back"})
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{t: rt, db: db, left: left}
		defer func() {
			for _, w := range h.running {
				_ = w.tx.Rollback()
			}
			left = snapshot(t, db)
		}()
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			h.step(steps.Draw(rt, "step"))
		}
		for range 4 {
			h.window()
		}
	})
}

// The pieces of a log cover each of its rows exactly once.
func TestPiecesCoverTheWholeLog(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	createLog(t, db)
	var ranges [][2]int64
	take := func(from, to int64) error { ranges = append(ranges, [2]int64{from, to}); return nil }
	must(t, entries.Pieces(t.Context(), db, take))
	if len(ranges) > 0 {
		t.Errorf("an empty log has pieces %v", ranges)
	}
	exec(t, db, `INSERT INTO entries (seq) OVERRIDING SYSTEM VALUE VALUES (7), (500006), (500007),
		(1200000)`)
	must(t, entries.Pieces(t.Context(), db, take))
	if want := [][2]int64{{7, 500_007}, {500_007, 1_000_007},
		{1_000_007, 1_500_007}}; !slices.Equal(ranges, want) {
		t.Errorf("pieces %v, want %v", ranges, want)
	}
}

func TestMalformedSnapshotIsAnError(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	createLog(t, db)
	for _, s := range []pg.Snapshot{"", "x", "3:3", "9:3:"} {
		if seqs, _, err := entries.Window(t.Context(), db, pg.Beginning, s, 0, 1); err == nil {
			t.Errorf("%q as the right edge: %v", s, seqs)
		}
	}
}
