package pg_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// A migration changes a type that prepared statements return or compare with. Outside a transaction
// the statement still succeeds, in every session of the pool. Inside one, the transaction succeeds
// when it runs once more.
func TestStatementsSurviveAMigration(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	exec(t, db, `CREATE TABLE numbers (n int, note text); INSERT INTO numbers VALUES (7, 'seven')`)
	statements := pg.NewStatements(db)
	ctx := pg.WithStatements(t.Context(), statements)
	const outside, inside = `SELECT n FROM numbers`, `SELECT n, note FROM numbers`
	const compared, uuid = `SELECT note FROM numbers WHERE n = $1`,
		"01234567-0123-0123-0123-0123456789ab"
	everySession := func(f func(tx *sqlx.Tx)) {
		t.Helper()
		var open []*sqlx.Tx
		for range 4 {
			tx, err := db.BeginTxx(ctx, nil)
			must(t, err)
			open = append(open, tx)
			f(tx)
		}
		for _, tx := range open {
			must(t, tx.Commit())
		}
	}
	run := func(tx *sqlx.Tx, query string, args ...any) error {
		q, err := pg.Prepared(ctx, tx, query)
		if err != nil {
			return err
		}
		_, err = q.Exec(ctx, args...)
		return err
	}
	everySession(func(tx *sqlx.Tx) {
		must(t, run(tx, outside))
		must(t, run(tx, inside))
		must(t, run(tx, compared, 7))
		types, err := pg.ColumnTypes(ctx, tx, "numbers")
		must(t, err)
		if types["n"] != "integer" {
			t.Errorf("types %v", types)
		}
	})
	exec(t, db, `ALTER TABLE numbers ALTER COLUMN n TYPE bigint`)
	for range 8 {
		stmt, err := statements.On(ctx, outside)
		must(t, err)
		var n int64
		must(t, stmt.GetContext(ctx, &n))
	}
	exec(t, db, `ALTER TABLE numbers ALTER COLUMN note TYPE varchar(100)`)
	retried(t, db, func(tx *sqlx.Tx) error { return run(tx, inside) })
	everySession(func(tx *sqlx.Tx) { must(t, run(tx, inside)) })
	retried(t, db, func(tx *sqlx.Tx) error {
		types, err := pg.ColumnTypes(ctx, tx, "numbers")
		if types["n"] != "bigint" {
			return fmt.Errorf("types %v: %w", types, err)
		}
		return err
	})
	everySession(func(tx *sqlx.Tx) { must(t, run(tx, compared, 7)) })
	exec(t, db, `ALTER TABLE numbers ALTER COLUMN n TYPE uuid USING gen_random_uuid()`)
	retried(t, db, func(tx *sqlx.Tx) error { return run(tx, compared, uuid) })
	everySession(func(tx *sqlx.Tx) { must(t, run(tx, compared, uuid)) })
	everySession(func(tx *sqlx.Tx) { exec(t, tx, `DEALLOCATE ALL`) })
	retried(t, db, func(tx *sqlx.Tx) error { return run(tx, inside) })
	stmt, err := statements.On(ctx, outside)
	must(t, err)
	everySession(func(tx *sqlx.Tx) { exec(t, tx, `DEALLOCATE ALL`) })
	_, err = stmt.ExecContext(ctx)
	must(t, err)
}

// retried runs f in a transaction twice. The first run may fail with class Retry.
func retried(t *testing.T, db *sqlx.DB, f func(tx *sqlx.Tx) error) {
	t.Helper()
	err := pg.InTx(t.Context(), db, f)
	if err != nil && pg.ClassOf(err) != pg.Retry {
		t.Errorf("class %d of %v", pg.ClassOf(err), err)
	}
	must(t, pg.InTx(t.Context(), db, f))
}

// A statement that is refused because of its own values is suspected to be outdated once, and not
// each time.
func TestRefusedValueCostsNoSessions(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	statements := pg.NewStatements(db)
	ctx := pg.WithStatements(t.Context(), statements)
	try := func(value string) error {
		return pg.InTx(ctx, db, func(tx *sqlx.Tx) error {
			q, err := pg.Prepared(ctx, tx, `SELECT $1::text::int`)
			if err == nil {
				_, err = q.Exec(ctx, value)
			}
			return err
		})
	}
	refused := func() pg.Class { return pg.ClassOf(try("seven")) }
	if class := refused(); class != pg.BadData {
		t.Errorf("class %d before the statement has succeeded, want %d", class, pg.BadData)
	}
	// it succeeds in both sessions of the pool
	must(t, pg.InTx(ctx, db, func(tx *sqlx.Tx) error {
		q, err := pg.Prepared(ctx, tx, `SELECT $1::text::int`)
		if err == nil {
			_, err = q.Exec(ctx, "7")
		}
		return errors.Join(err, try("7"))
	}))
	// A session that keeps the statement prepared is suspected. One that prepares it for each
	// transaction is not.
	suspected := 0
	for range 20 {
		must(t, try("7"))
		switch class := refused(); class {
		case pg.Retry:
			suspected++
		case pg.BadData:
		default:
			t.Errorf("class %d", class)
		}
	}
	if suspected > 1 {
		t.Errorf("it was suspected %d times, and the pool reconnected each time", suspected)
	}
}

// plannerTest checks the planner settings that statements see on one pool.
type plannerTest struct {
	*testing.T
	db        *sqlx.DB
	ctx       context.Context
	option    string
	kit, user string // the expected settings
}

const plannerSettings = `SELECT concat_ws(' ', current_setting('enable_seqscan'),
	current_setting('jit'))`

func (p plannerTest) byUser(q sqlx.QueryerContext) {
	p.Helper()
	var got string
	must(p, sqlx.GetContext(p.ctx, q, &got, plannerSettings))
	if got != p.user {
		p.Errorf("%s: a user's statement sees %q, want %q", p.option, got, p.user)
	}
}

func (p plannerTest) byKit(tx *sqlx.Tx) {
	p.Helper()
	q, err := pg.Prepared(p.ctx, tx, plannerSettings)
	must(p, err)
	rows, err := q.Query(p.ctx)
	must(p, err)
	defer func() { must(p, rows.Close()) }()
	var got string
	for rows.Next() {
		must(p, rows.Scan(&got))
	}
	if got != p.kit {
		p.Errorf("%s: a statement of the kit sees %q, want %q", p.option, got, p.kit)
	}
}

// in runs f in a transaction that is committed if end is nil and rolled back otherwise.
func (p plannerTest) in(end error, f func(tx *sqlx.Tx)) {
	p.Helper()
	if err := pg.InTx(p.ctx, p.db,
		func(tx *sqlx.Tx) error { f(tx); return end }); !errors.Is(err, end) {
		p.Fatal(err)
	}
	p.byUser(p.db)
}

// The kit's prepared statements are planned with settings of their own. A user's statements in the
// same session, and in the same transaction, see those of the server.
func TestUsersStatementsArePlannedAsUsual(t *testing.T) {
	t.Parallel()
	raw, admin := newDatabase(t)
	exec(t, admin, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = on',
		current_database()); END $$`)
	for _, c := range []plannerTest{
		{kit: "off off", user: "on on"}, {option: "&jit=off", kit: "off off", user: "on off"},
		{option: "&enable_seqscan=off&jit=off", kit: "off off", user: "off off"},
	} {
		c.T, c.db = t, pool(t, raw+c.option)
		c.db.SetMaxOpenConns(2) // one is used, the other prepares
		c.ctx = pg.WithStatements(t.Context(), pg.NewStatements(c.db))
		undone := errors.New("undone")
		for _, end := range []error{nil, undone} {
			c.in(end, func(tx *sqlx.Tx) {
				c.byUser(tx)
				c.byKit(tx)
				c.byKit(tx)
				c.byUser(tx)
				exec(t, tx, `SAVEPOINT here`)
				c.byKit(tx)
				if _, err := tx.ExecContext(c.ctx, `SELECT 1/0`); err == nil {
					t.Error("a division by zero")
				}
				exec(t, tx, `ROLLBACK TO here`)
				c.byUser(tx)
				c.byKit(tx)
			})
		}
		// A statement of the kit fails, and a user's statement rolls back to the savepoint.
		c.in(nil, func(tx *sqlx.Tx) {
			exec(t, tx, `SAVEPOINT here`)
			q, err := pg.Prepared(c.ctx, tx, `SELECT 1/$1::int`)
			must(t, err)
			if _, err := q.Exec(c.ctx, 0); err == nil {
				t.Error("a division by zero")
			}
			exec(t, tx, `ROLLBACK TO here`)
			c.byUser(tx)
			c.byKit(tx)
		})
		var got string
		must(t, c.db.GetContext(pg.ByIndex(c.ctx), &got, plannerSettings))
		if got != c.kit {
			t.Errorf("%s: ByIndex sees %q", c.option, got)
		}
		// The change back to the user's settings is rolled back with its transaction.
		c.in(undone, func(tx *sqlx.Tx) { c.byUser(tx) })
	}
}

// A user's values arrive unchanged in columns of every type.
func TestUsersValuesKeepTheirMeaning(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	exec(t, db, `CREATE TABLE things (doc jsonb, plain json, raw bytea, word text, words text[])`)
	for _, doc := range []any{[]byte(`{"a": 1}`), json.RawMessage(`{"a": 1}`), `{"a": 1}`,
		pg.JSON[map[string]int]{V: map[string]int{"a": 1}}} {
		insert := func(ctx context.Context, e sqlx.ExecerContext) {
			_, err := e.ExecContext(ctx, `INSERT INTO things VALUES ($1, $2, $3, $4, $5)`, doc, doc,
				[]byte{0, 1, 0xff}, []byte("word"), []string{"a", "b"})
			if err != nil {
				t.Errorf("%T: %v", doc, err)
			}
		}
		insert(t.Context(), db)
		stmt, err := db.PreparexContext(t.Context(), `INSERT INTO things (doc, plain) VALUES ($1, $2)`)
		must(t, err)
		_, err = stmt.ExecContext(t.Context(), doc, doc)
		must(t, err)
		must(t, stmt.Close())
	}
	if n := count(t, db,
		`SELECT count(*) FROM things WHERE doc = '{"a": 1}' AND plain ->> 'a' = '1'`); n != 8 {
		t.Errorf("%d of 8 are right", n)
	}
	if n := count(t, db, `SELECT count(*) FROM things WHERE raw = '\x0001ff' AND word = 'word'
		AND words = '{a,b}'`); n != 4 {
		t.Errorf("%d of 4 are right", n)
	}
}
