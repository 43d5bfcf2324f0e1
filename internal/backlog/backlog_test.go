package backlog_test

import (
	"context"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/backlog"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/outbox"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// env is a database with the tables of the kit.
type env struct {
	*testing.T
	db *sqlx.DB
}

func newEnv(t *testing.T) env {
	t.Helper()
	key := "backlog"
	for _, files := range []fs.FS{outbox.Migrations(), inbox.Migrations()} {
		names, err := fs.Glob(files, "*.sql")
		for _, name := range names {
			var text []byte
			if text, err = fs.ReadFile(files, name); err == nil {
				key += string(text)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := pg.Open(servertest.Database(t, key, func(ctx context.Context, url string) error {
		if err := pg.Migrate(ctx, url, "outbox", outbox.Migrations()); err != nil {
			return err
		}
		return pg.Migrate(ctx, url, "inbox", inbox.Migrations())
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return env{t, db}
}

func (e env) exec(q sqlx.ExecerContext, query string, args ...any) {
	e.Helper()
	if _, err := q.ExecContext(e.Context(), query, args...); err != nil {
		e.Fatal(err)
	}
}

func (e env) read() backlog.Backlog {
	e.Helper()
	b, err := backlog.Read(e.Context(), e.db, "shop")
	if err != nil {
		e.Fatal(err)
	}
	return b
}

// rows inserts n rows into the outbox, some time ago.
func (e env) rows(q sqlx.ExecerContext, n int, ago time.Duration) {
	e.Helper()
	e.exec(q, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers, created_at)
		SELECT gen_random_uuid(), 'a', 'a-' || g, 'a.b', '{}', '{}', now() - $2 * interval '1 second'
		FROM generate_series(1, $1) g`, n, ago.Seconds())
}

// cursor moves the cursor.
func (e env) cursor(a, b string, last int64) {
	e.Helper()
	e.exec(e.db, `UPDATE outbox_cursor SET a = $1, b = $2, last_seq = $3`, a, b, last)
}

func (e env) now() string {
	e.Helper()
	s, err := pg.Now(e.Context(), e.db)
	if err != nil {
		e.Fatal(err)
	}
	return string(s)
}

func (e env) begin() *sql {
	e.Helper()
	conn, err := e.db.Connx(e.Context())
	if err != nil {
		e.Fatal(err)
	}
	e.exec(conn, `BEGIN; SELECT pg_current_xact_id()`)
	return &sql{conn}
}

// sql is a connection with an open transaction.
type sql struct{ *sqlx.Conn }

func (e env) commit(s *sql) {
	e.Helper()
	e.exec(s, `COMMIT`)
	if err := s.Close(); err != nil {
		e.Error(err)
	}
}

// What counts is what the cursor has not passed, at every place of the cursor, also if a row
// commits after rows with higher numbers were published.
func TestUnpublishedIsWhatTheCursorHasNotPassed(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	expect := func(where string, n int64, age time.Duration) {
		t.Helper()
		b := e.read()
		if b.Unpublished != n || b.UnpublishedAge < age || b.UnpublishedAge > age+time.Minute {
			t.Errorf("%s: %d unpublished, the oldest since %s; want %d since %s", where, b.Unpublished,
				b.UnpublishedAge, n, age)
		}
	}
	expect("at the beginning", 0, 0)
	e.rows(e.db, 10, time.Hour)
	expect("the relay has not begun", 10, time.Hour)

	a := e.now()
	e.cursor(a, a, 0)
	expect("all are passed", 0, 0)

	early := e.begin() // its id is lower than those of all that follow, but it commits late
	e.rows(early, 1, 2*time.Hour)
	e.rows(e.db, 20, time.Minute) // numbers 12 to 31
	b := e.now()
	e.cursor(a, b, 0)
	expect("a window is open", 20, time.Minute)
	e.cursor(a, b, 26)
	expect("a part of the window is passed", 5, time.Minute)
	e.rows(e.db, 3, 0)
	expect("rows come after the window", 8, time.Minute)
	e.commit(early)
	expect("a row commits late with a low number", 9, 2*time.Hour)
	e.cursor(b, b, 0)
	expect("the window is closed", 4, 2*time.Hour)
	end := e.now()
	e.cursor(end, end, 0)
	expect("all are passed again", 0, 0)
}

// pend inserts rows into pending, due some time from now; negative: ago.
func (e env) pend(kind, eventType string, n int, due time.Duration) {
	e.Helper()
	e.exec(e.db, `INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key,
			attributes, body, attempts, due, reason, created_at)
		SELECT 'shop', 'x', $1 || $2 || g || $5, $1, $2, '', '', '{}', '', 0,
			now() + $4 * interval '1 second', 'r', now() FROM generate_series(1, $3) g`,
		kind, eventType, n, due.Seconds(), due.String())
}

func (e env) park(kind string, n int, ago time.Duration) {
	e.Helper()
	e.exec(e.db, `INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key,
			attributes, body, attempts, due, reason, created_at)
		SELECT 'shop', 'x', 'parked' || $1 || g || $4, $1, 't', '', '', '{}', '', 0, NULL, 'r',
			now() - $3 * interval '1 second' FROM generate_series(1, $2) g`,
		kind, n, ago.Seconds(), ago.String())
}

func TestPendingIsCountedByKindAndTime(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.pend("retry", "a.b", 2, time.Hour)
	e.pend("retry", "a.c", 1, -10*time.Second)
	e.pend("deadline", "a.d", 3, -time.Hour)
	e.pend("deadline", "a.d", backlog.Most, time.Hour) // they hide nothing
	e.park("evidence", 1, time.Hour)
	e.park("call", 2, 2*time.Hour)
	e.exec(e.db, `UPDATE pending SET consumer = 'other' WHERE key = 'retrya.b11h0m0s'`)
	e.exec(e.db, `INSERT INTO outbox_held (seq, aggregate, reason, attempts, due, kind)
		SELECT g, 'a', 'r', 1, now(), CASE WHEN g > 3 THEN 'behind' ELSE 'refused' END
		FROM generate_series(1, 5) g`)
	b := e.read()
	got := fmt.Sprint(b.Pending, b.Due, b.Overdue, b.Parked, b.Held)
	want := fmt.Sprint(map[string]int64{"retry": 2, "deadline": backlog.Most},
		map[string]int64{"retry": 1, "deadline": 3}, map[string]int64{"retry": 0, "deadline": 3},
		map[string]int64{"evidence": 1, "call": 2}, map[string]int64{"refused": 3, "behind": 2})
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for name, age := range map[string]struct{ is, want time.Duration }{
		"parked": {b.ParkedAge, 2 * time.Hour}, "due": {b.DueAge, time.Hour}} {
		if age.is < age.want || age.is > age.want+time.Minute {
			t.Errorf("the age of what is %s is %s, want %s", name, age.is, age.want)
		}
	}
}

// A read costs the same however much waits, and hardly anything while nothing does: also with a
// million published events, and before the server has statistics.
func TestReadIsCheapWithManyRows(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for range 20 { // each within the time-out of a statement, on a busy machine as well
		e.rows(e.db, 50_000, time.Hour)
	}
	before, all := "3:3:", e.now()
	e.cursor(all, all, 0)
	idle := map[string]int{"unpublished": 50, "held": 20, "parked": 20, "pending": 50}
	e.cheap("published", idle)
	e.exec(e.db, `ANALYZE outbox`)
	e.cheap("published, with statistics", idle)

	// The counts stop at Most, of each type.
	most := map[string]int{"unpublished": 3 * backlog.Most, "held": 2 * backlog.Most,
		"parked": 2 * backlog.Most, "pending": 4 * backlog.Most}
	e.exec(e.db, `INSERT INTO outbox_held (seq, aggregate, reason, attempts, due, kind)
		SELECT g, 'a' || g, 'r', 1, now(), 'refused' FROM generate_series(1, 100000) g`)
	e.park("retry", 100_000, time.Hour)
	e.pend("deadline", "a.d", 100_000, time.Hour)
	e.pend("retry", "a.b", 100_000, -time.Hour)
	e.cursor(before, before, 0)
	e.cheap("unpublished", most)
	e.cursor(before, all, 999_000)
	e.cheap("almost passed", most)
	e.exec(e.db, `ANALYZE`)
	e.cheap("almost passed, with statistics", most)
	if b := e.read(); b.Unpublished != 1000 || b.Held["refused"] != backlog.Most ||
		b.Parked["retry"] != backlog.Most || b.Due["retry"] != backlog.Most {
		t.Errorf("%+v", b)
	}
}

// cheap fails if a query of Read touches more buffers than its limit.
func (e env) cheap(when string, limits map[string]int) {
	e.Helper()
	args := map[string][]any{"unpublished": {backlog.Most}, "held": {backlog.Most},
		"parked":  {"shop", backlog.Most},
		"pending": {"shop", backlog.Most, backlog.MaxTypes, backlog.OverdueAfter.Seconds()}}
	for name, query := range backlog.Queries {
		var text string
		if err := e.db.GetContext(pg.ByIndex(e.Context()), &text,
			`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+query, args[name]...); err != nil {
			e.Fatalf("%s: %v", name, err)
		}
		var plans []struct {
			Plan struct {
				Hit  int `json:"Shared Hit Blocks"`
				Read int `json:"Shared Read Blocks"`
			}
			Time float64 `json:"Execution Time"`
		}
		if err := json.Unmarshal([]byte(text), &plans); err != nil {
			e.Fatal(err)
		}
		if n := plans[0].Plan.Hit + plans[0].Plan.Read; n > limits[name] {
			e.Errorf("%s: %s touches %d buffers, at most %d\n%s", when, name, n, limits[name], text)
		} else {
			e.Logf("%s: %s touches %d buffers in %.1f ms", when, name, n, plans[0].Time)
		}
	}
}
