package inbox_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func database(t *testing.T) *sqlx.DB {
	t.Helper()
	files := inbox.Migrations()
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(data)
	}
	url := servertest.Database(t, "inbox-"+hex.EncodeToString(sum.Sum(nil)),
		func(ctx context.Context, url string) error {
			return pg.Migrate(ctx, url, "inbox", inbox.Migrations())
		})
	db, err := pg.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func inTx(t *testing.T, db *sqlx.DB, f func(tx *sqlx.Tx) error) {
	t.Helper()
	if err := pg.InTx(t.Context(), db, f); err != nil {
		t.Fatal(err)
	}
}

// An event of an owner is fresh once for each consumer, even to concurrent transactions whose
// batches overlap in different orders. A transaction that is rolled back has accepted nothing.
func TestEventIsFreshOnce(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	db := database(t)
	var all []inbox.Receipt
	for range 60 {
		id := events.NewID()
		all = append(all, inbox.Receipt{Owner: "orders", ID: id, Type: "a"},
			inbox.Receipt{Owner: "payments", ID: id, Type: "b"})
	}
	var fresh atomic.Int64
	undo := errors.New("undo")
	var running sync.WaitGroup
	for n := range 8 {
		random := rand.New(rand.NewPCG(seed, uint64(n)))
		consumer := inbox.New(db, []string{"x", "y"}[n%2])
		running.Go(func() {
			for range 30 {
				var batch []inbox.Receipt
				for _, i := range random.Perm(len(all))[:20] {
					batch = append(batch, all[i])
				}
				rollBack := random.IntN(3) == 0
				var found map[inbox.Receipt]bool
				err := pg.InTx(t.Context(), db, func(tx *sqlx.Tx) (err error) {
					if found, err = consumer.Accept(t.Context(), tx, batch...); err == nil && rollBack {
						return undo
					}
					return err
				})
				switch {
				case err == nil:
					fresh.Add(int64(len(found)))
				case !errors.Is(err, undo):
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	for _, name := range []string{"x", "y"} { // the events that no batch contained
		inTx(t, db, func(tx *sqlx.Tx) error {
			found, err := inbox.New(db, name).Accept(t.Context(), tx, all...)
			fresh.Add(int64(len(found)))
			return err
		})
	}
	if want := int64(2 * len(all)); fresh.Load() != want {
		t.Errorf("events were fresh %d times, want %d: once for each of two consumers", fresh.Load(),
			want)
	}
}

func TestAcceptRefusesInvalidIDs(t *testing.T) {
	t.Parallel()
	db := database(t)
	for _, id := range []string{"", "order-17", strings.Repeat("0", 500)} {
		err := pg.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
			_, err := inbox.New(db, "x").Accept(t.Context(), tx, inbox.Receipt{Owner: "orders", ID: id,
				Type: "a"})
			return err
		})
		if pg.ClassOf(err) != pg.BadData {
			t.Errorf("%.20q: %v", id, err)
		}
	}
}

func TestHandledReturnsAcceptedEvents(t *testing.T) {
	t.Parallel()
	db := database(t)
	in, other := inbox.New(db, "x"), inbox.New(db, "y")
	shared, single := events.NewID(), events.NewID()
	inTx(t, db, func(tx *sqlx.Tx) error {
		_, err := in.Accept(t.Context(), tx, inbox.Receipt{Owner: "orders", ID: shared, Type: "a"},
			inbox.Receipt{Owner: "payments", ID: shared, Type: "b"},
			inbox.Receipt{Owner: "stock", ID: single, Type: "c"})
		return err
	})
	handled, err := in.Handled(t.Context(), shared, events.NewID())
	if err != nil || len(handled) != 2 || handled[0].ID != shared ||
		handled[0].Owner == handled[1].Owner {
		t.Errorf("handled %+v, %v", handled, err)
	}
	if handled, err := other.Handled(t.Context(), shared, single); err != nil || len(handled) != 0 {
		t.Errorf("the other consumer has handled %+v, %v", handled, err)
	}
	if handled, err := in.Handled(t.Context()); err != nil || len(handled) != 0 {
		t.Errorf("handled without ids: %+v, %v", handled, err)
	}
}
