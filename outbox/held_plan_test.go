package outbox_test

import (
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// A poll with a hundred thousand held aggregates must cost the same as with none. The rows may wait
// for a queue, for a person or for another row, and the server's statistics may not include them
// yet.
func TestPollIsCheapWithManyHeldRows(t *testing.T) {
	t.Parallel()
	s := outboxtest.NewWithoutBroker(t)
	s.Exec(`INSERT INTO outbox_held (seq, aggregate, reason, attempts, due, kind)
		SELECT g, 'a' || g % 100000, 'test', 1, CASE g / 100000 WHEN 0 THEN now() + interval '1 hour'
			ELSE 'infinity' END,
			CASE WHEN g >= 100000 THEN 'behind' WHEN g % 2 = 0 THEN 'unroutable' ELSE 'quarantined' END
		FROM generate_series(0, 149999) g`)
	s.Exec(`UPDATE outbox_held SET due = 'infinity' WHERE kind = 'quarantined'`)
	var some pq.StringArray
	for n := range 50 {
		some = append(some, outboxtest.Aggregate(n), "a"+outboxtest.Aggregate(n)[len("aggregate-"):])
	}
	args := map[string][]any{"due": {100}, "aggregates": {some}, "refused": {outbox.MaxHeld},
		"next": {some[:100], 100}}
	for _, statistics := range []string{"none", "fresh"} {
		if statistics == "fresh" {
			s.Exec(`ANALYZE outbox_held`)
		}
		for name, query := range outbox.HeldQueries {
			conn, err := s.DB.Connx(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var text string
			// The leader sets this too.
			if _, err = conn.ExecContext(t.Context(), `SET enable_seqscan = off`); err == nil {
				err = conn.GetContext(t.Context(), &text, `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+query,
					args[name]...)
			}
			_ = conn.Close()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var plans []struct {
				Plan struct {
					Hit  int `json:"Shared Hit Blocks"`
					Read int `json:"Shared Read Blocks"`
				}
			}
			if err := json.Unmarshal([]byte(text), &plans); err != nil {
				t.Fatal(err)
			}
			if touched := plans[0].Plan.Hit + plans[0].Plan.Read; touched > 600 {
				t.Errorf("statistics %s: %s touches %d buffers\n%s", statistics, name, touched, text)
			} else {
				t.Logf("statistics %s: %s touches %d buffers", statistics, name, touched)
			}
		}
	}
}
