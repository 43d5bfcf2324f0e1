package inbox_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// Old receipts of an owner are deleted a batch at a time, in the order of their ids. Young ones
// stay, and so do those of events that pend, of other owners and of other consumers.
func TestOldReceiptsAreDeleted(t *testing.T) {
	t.Parallel()
	db := database(t)
	in, other := inbox.New(db, "test"), inbox.New(db, "another")
	id := func(n int) string { return fmt.Sprintf("01900000-0000-7000-8000-%012d", n) }
	accept := func(in *inbox.Inbox, owner string, n int) {
		t.Helper()
		err := pg.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
			_, err := in.Accept(t.Context(), tx, inbox.Receipt{Owner: owner, ID: id(n), Type: "a.b"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := range 10 {
		accept(in, "shop", n)
	}
	accept(in, "bank", 0)
	accept(other, "shop", 0)
	add(t, db, in, id(3), "a.b", time.Hour, false)
	const keep = 10 * 24 * time.Hour
	for _, change := range []string{
		`UPDATE pending SET owner = 'shop'`,
		`UPDATE inbox SET handled_at = now() - interval '12 days'`,
		// younger than keep and the margin for clocks that differ
		`UPDATE inbox SET handled_at = now() - interval '10.5 days' WHERE event_id = '` + id(5) + `'`,
	} {
		if _, err := db.ExecContext(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	after, deleted := "", 0
	for range 4 {
		f, err := inbox.NewForgetter(in).Receipts(t.Context(), "shop", after, keep, 3)
		if err != nil {
			t.Fatal(err)
		}
		after, deleted = f.Reached, deleted+f.Deleted
	}
	var left []string
	if err := db.SelectContext(t.Context(), &left, `SELECT consumer || ' ' || owner || ' '
		|| right(event_id::text, 1) FROM inbox ORDER BY 1`); err != nil {
		t.Fatal(err)
	}
	want := []string{"another shop 0", "test bank 0", "test shop 3", "test shop 5"}
	if fmt.Sprint(left) != fmt.Sprint(want) || deleted != 8 || after != id(9) {
		t.Errorf("left %v after %d deletions up to %s, want %v", left, deleted, after, want)
	}
	if owners, err := inbox.NewForgetter(in).Owners(t.Context()); err != nil ||
		fmt.Sprint(owners) != "[bank shop]" {
		t.Errorf("owners: %v (%v)", owners, err)
	}
}

// The record of repairs is kept for a time, too.
func TestOldRepairsAreDeleted(t *testing.T) {
	t.Parallel()
	db := database(t)
	in := inbox.New(db, "test")
	for n := range 5 {
		add(t, db, in, fmt.Sprint("key-", n), "a.b", 0, true)
		if _, err := in.Discard(t.Context(), "ada", "old", fmt.Sprint("key-", n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE repairs SET at = now() - interval '91 days'
		WHERE key < 'key-3'`); err != nil {
		t.Fatal(err)
	}
	forget := func(ctx context.Context) int64 {
		n, err := inbox.NewForgetter(in).Repairs(ctx, 90*24*time.Hour, 2)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if a, b, c := forget(t.Context()), forget(t.Context()), forget(t.Context()); a != 2 || b != 1 ||
		c != 0 {
		t.Errorf("deleted %d, %d and %d, want 2, 1 and 0", a, b, c)
	}
}
