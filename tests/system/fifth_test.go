package system_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/tests/system/env"
	"github.com/quadrille-go/quadrille/tests/system/loyalty"
)

// TestFifthService lets a fifth service join the running order flow. It must handle every confirmed
// order once, and no other.
func TestFifthService(t *testing.T) {
	d := env.Start(t)
	database := env.EmptyDatabase(t)
	fifth, err := loyalty.New(database, d.Admin, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	quadrilletest.Run(t, fifth)
	env.Await(t, "the fifth service to be connected", func() (string, bool) {
		return "not connected", fifth.Connected()
	})

	d.StockUp()
	good := map[string]bool{}
	for i := range 10 {
		good[order(t, d, fmt.Sprint("good-", i), "DE")] = true
	}
	bad := order(t, d, "bad", "AQ")

	db, err := postgres.Open(database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	env.Await(t, "points for ten orders", func() (string, bool) {
		n := len(points(t, db))
		return fmt.Sprintf("%d of 10", n), n == 10
	})
	env.Await(t, "the refused order to be cancelled", func() (string, bool) {
		o, err := d.Request("orders", "GET", "/orders/"+bad, "", "", http.StatusOK)
		return fmt.Sprint(o, err), err == nil && o["state"] == string(orders.Cancelled)
	})
	for _, id := range points(t, db) {
		if !good[id] {
			t.Errorf("points were granted for order %s, which was not confirmed", id)
		}
	}
	var published int
	if err := db.Get(&published,
		`SELECT count(*) FROM outbox WHERE type = 'points.granted'`); err != nil || published != 10 {
		t.Errorf("points.granted was published %d times, want 10 (%v)", published, err)
	}
}

func order(t *testing.T, d *env.Env, key, country string) string {
	t.Helper()
	id, err := d.Order(key, country)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func points(t *testing.T, db *sqlx.DB) (ids []string) {
	t.Helper()
	if err := db.Select(&ids, `SELECT order_id::text FROM points`); err != nil &&
		!strings.Contains(err.Error(), "does not exist") {
		t.Fatal(err)
	}
	return ids
}
