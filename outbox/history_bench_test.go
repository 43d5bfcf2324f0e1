package outbox_test

import (
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// BenchmarkRelayBehindHistory drains an outbox with ten million published rows and an empty one in
// turns.
func BenchmarkRelayBehindHistory(b *testing.B) {
	const history, rows = 10_000_000, 20_000
	behind, empty := outboxtest.New(b), outboxtest.New(b)
	writeHistory(behind, history)
	var long, short time.Duration
	for b.Loop() {
		long += drain(b, behind, rows)
		short += drain(b, empty, rows)
	}
	total := float64(rows * b.N)
	b.ReportMetric(total/long.Seconds(), "behind-10M/s")
	b.ReportMetric(total/short.Seconds(), "empty/s")
	b.ReportMetric(100*short.Seconds()/long.Seconds(), "%")
}

// writeHistory inserts rows that look as if they were published long ago, each in a transaction of
// its own.
func writeHistory(s *outboxtest.Env, rows int) {
	// It is faster to build the indexes after the rows.
	s.Exec(`DROP INDEX outbox_window; DROP INDEX outbox_aggregate`)
	// The cursor passes all transaction ids that the rows get.
	s.Exec(`SET statement_timeout = 0; UPDATE outbox_cursor SET a = f.now, b = f.now,
		txid = pg_current_xact_id()
		FROM (SELECT pg_current_snapshot() AS now) AS f`)
	const chunk = 1_000_000
	for from := 0; from < rows; from += chunk {
		s.Exec(`INSERT INTO outbox (txid, id, aggregatetype, aggregateid, type, payload, headers)
			SELECT (3 + g::bigint * (pg_snapshot_xmin(k.a)::text::bigint - 3) / $2::bigint)::text::xid8,
				gen_random_uuid(), 'note', (g / 7)::text,
				'note.taken', '{}', '{}'
			FROM outbox_cursor AS k, generate_series($1::bigint, $1::bigint + 999999) AS g`, from, rows)
	}
	s.Exec(`SET statement_timeout = 0; CREATE INDEX outbox_window ON outbox (txid,
		seq); CREATE INDEX outbox_aggregate ON outbox (aggregateid)`)
	s.Exec(`SET statement_timeout = 0; ANALYZE outbox`)
}
