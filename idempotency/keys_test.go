package idempotency_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// Keys are kept for a day unless it is configured otherwise. The answer to a key that is kept is
// repeated; a key that was deleted takes effect again.
func TestOldKeysAreDeleted(t *testing.T) {
	t.Parallel()
	db := database(t)
	const keys = 2500 // more than two batches
	if _, err := db.ExecContext(t.Context(), `INSERT INTO idempotency_keys (client, key, fingerprint,
		status, location, body, created_at) SELECT 'ada', n::text, '', 200, '', '', now() - interval
		'25 hours' FROM generate_series(1, $1) AS n`, keys); err != nil {
		t.Fatal(err)
	}
	first, _, err := do(t.Context(), db, "ada", "young", "x", http.StatusCreated)
	if err != nil {
		t.Fatal(err)
	}
	k := &idempotency.Keys{}
	if err := k.Open(t.Context(), quadrille.Host{DB: db, Log: zerolog.Nop()}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); k.Run(ctx) }()
	quadrilletest.WaitFor(t, "one key is left", func() (bool, string) {
		var n int
		err := db.GetContext(t.Context(), &n, `SELECT count(*) FROM idempotency_keys`)
		return n == 1, fmt.Sprint(n, " keys, ", err)
	})
	stop()
	<-ended
	again, replayed, err := do(t.Context(), db, "ada", "young", "x", http.StatusCreated)
	if err != nil || !replayed || string(again.Body) != string(first.Body) {
		t.Errorf("the young key: %+v, replayed %v (%v)", again, replayed, err)
	}
	if err := (&idempotency.Keys{Keep: -time.Hour}).Open(t.Context(), quadrille.Host{}); err == nil {
		t.Error("a negative time is accepted")
	}
}
