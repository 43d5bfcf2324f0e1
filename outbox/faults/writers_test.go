package faults_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// OUT-03: open transactions of readers and writers, in this database and in another one of the
// cluster, do not delay later events.
func TestLongTransactionsDoNotStallTheRelay(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	other := outboxtest.OpenDB(t, servertest.Database(t, "empty",
		func(context.Context, string) error { return nil }))
	for _, db := range []*sqlx.DB{s.DB, other} {
		for _, query := range []string{`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
			SELECT pg_current_snapshot()`, `SELECT pg_current_xact_id()`} {
			tx, err := db.BeginTxx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tx.Rollback() })
			if _, err := tx.Exec(query); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.Run(s.Relay(s.Out))
	for n := range 5 {
		ids := s.AppendNotes("a", n)
		if got := outboxtest.MessageIDs(s.Receive(s.Queue, 1)); !slices.Equal(got, ids) {
			t.Fatalf("received %v, committed %v", got, ids)
		}
	}
}

func TestHostileWritersLoseAndReorderNothing(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := outboxtest.New(t)
	s.CreateVersionTable()
	r := s.Relay(s.Out)
	s.Run(r)
	var writers sync.WaitGroup
	for w := range uint64(16) {
		writers.Go(func() {
			random := rand.New(rand.NewPCG(seed, w))
			for range 25 {
				if err := s.HostileWrite(t.Context(), random); err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	writers.Wait()
	var committed []string
	if err := s.DB.Select(&committed, `SELECT id::text FROM outbox`); err != nil {
		t.Fatal(err)
	}
	got := s.Receive(s.Queue, len(committed))
	checkOrder(t, got)
	ids := outboxtest.MessageIDs(got)
	slices.Sort(ids)
	slices.Sort(committed)
	if !slices.Equal(ids, committed) {
		t.Fatalf("received %d ids (%d different), committed %d", len(ids), len(slices.Compact(ids)),
			len(committed))
	}
	s.AwaitSettled()
	// The depth of the queue is no proof: when a channel closes, a busy broker may forget
	// acknowledgements.
	if n := r.Stats().Published; n != int64(len(committed)) {
		t.Fatalf("%d events were published, want %d", n, len(committed))
	}
}

// checkOrder fails the test unless the notes of each aggregate are in order.
func checkOrder(t *testing.T, got []amqp.Delivery) {
	t.Helper()
	last := map[string]int{}
	for i, d := range got {
		var n outboxtest.Note
		if err := json.Unmarshal(d.Body, &n); err != nil {
			t.Fatal(err)
		}
		if n.N <= last[n.On] {
			t.Errorf("delivery %d: %s %d is after %d", i, n.On, n.N, last[n.On])
		}
		last[n.On] = n.N
	}
}
