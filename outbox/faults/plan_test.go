package faults_test

import (
	"context"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// explainer keeps the plan of each query before it runs the query.
type explainer struct {
	*sqlx.Conn
	t    *testing.T
	text string
	root plan
}

type plan struct {
	Node    string `json:"Node Type"`
	Index   string `json:"Index Name"`
	Hit     int    `json:"Shared Hit Blocks"`
	Read    int    `json:"Shared Read Blocks"`
	Filter  string `json:"Filter"`
	Removed int    `json:"Rows Removed by Filter"`
	Plans   []plan `json:"Plans"`
}

func (e *explainer) QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows,
	error) {
	e.t.Helper()
	if err := e.GetContext(ctx, &e.text, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+query,
		args...); err != nil {
		e.t.Fatal(err)
	}
	var plans []struct{ Plan plan }
	if err := json.Unmarshal([]byte(e.text), &plans); err != nil {
		e.t.Fatal(err)
	}
	e.root = plans[0].Plan
	return e.Conn.QueryxContext(ctx, query, args...)
}

// check fails the test if the plan scans anything but the index outbox_window.
func (e *explainer) check(p plan) {
	if strings.Contains(p.Node, "Scan") && !strings.Contains(p.Node, "Bitmap Heap") &&
		p.Index != "outbox_window" {
		e.t.Errorf("the plan has a %s of %q, want outbox_window only", p.Node, p.Index)
	}
	for _, child := range p.Plans {
		e.check(child)
	}
}

// The cost to read a window must not depend on how many rows were published before.
func TestWindowIsCheapBehindTwoMillionRows(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	writeHistory(s)
	now, err := pg.Now(t.Context(), s.DB)
	if err != nil {
		t.Fatal(err)
	}
	running := s.Begin() // it is running in the left edge, and commits later
	s.AppendIn(running, outboxtest.Event(outboxtest.Note{On: "late", N: 1}))
	left, err := pg.Now(t.Context(), s.DB)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		s.AppendNotes(outboxtest.Aggregate(n), 1, 2, 3)
	}
	s.Commit(running)
	for _, statistics := range []string{"stale", "fresh"} {
		if statistics == "fresh" {
			s.Exec(`ANALYZE outbox`)
		}
		for _, mode := range []string{"auto", "force_generic_plan", "force_custom_plan"} {
			conn, err := s.DB.Connx(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.ExecContext(t.Context(), `SET plan_cache_mode = `+mode); err != nil {
				t.Fatal(err)
			}
			t.Logf("statistics %s, %s", statistics, mode)
			checkWindow(t, conn, now, now, 0, 200) // some for the open transactions of other tests
			checkWindow(t, conn, left, "", 301, 2000)
			_ = conn.Close()
		}
	}
}

// checkWindow reads a window, up to the current snapshot if b is empty, and checks how many rows
// and buffers it reads.
func checkWindow(t *testing.T, conn *sqlx.Conn, a, b pg.Snapshot, rows, buffers int) {
	t.Helper()
	if b == "" {
		var err error
		if b, err = pg.Now(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
	}
	e := &explainer{Conn: conn, t: t}
	seqs, _, err := pg.Log("outbox").Window(t.Context(), e, a, b, 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	e.check(e.root)
	if touched := e.root.Hit + e.root.Read; len(seqs) != rows || touched > buffers {
		t.Errorf("%d rows, want %d; %d buffers touched, want at most %d\n%s", len(seqs), rows, touched,
			buffers, e.text)
	}
}

// writeHistory inserts rows that look as if they were published long ago, each in a transaction of
// its own.
func writeHistory(s *outboxtest.Env) {
	// It is faster to build the indexes after the rows.
	s.Exec(`DROP INDEX outbox_window; DROP INDEX outbox_aggregate`)
	s.Exec(`SET statement_timeout = 0; INSERT INTO outbox (txid, id, aggregatetype, aggregateid, type,
		payload, headers)
		SELECT (3 + g * (pg_snapshot_xmin(pg_current_snapshot())::text::bigint
			- 3) / 2000000)::text::xid8,
			'00000000-0000-7000-8000-000000000000', 'note', (g / 7)::text, 'note.taken', '{}', '{}'
		FROM generate_series(0, 1999999) g`)
	s.Exec(`SET statement_timeout = 0; CREATE INDEX outbox_window ON outbox (txid,
		seq); CREATE INDEX outbox_aggregate ON outbox (aggregateid)`)
}
