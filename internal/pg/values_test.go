package pg_test

import (
	"context"
	"math"
	"reflect"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"pgregory.net/rapid"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// PostgreSQL reads an array literal of Array as the same values.
func TestArrayIsReadAsTheSameValues(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	text := rapid.StringOf(rapid.OneOf(rapid.RuneFrom([]rune(`"\{},' NULnul`)),
		rapid.Rune().Filter(func(r rune) bool { return r != 0 })))
	rapid.Check(t, func(rt *rapid.T) {
		want := pq.StringArray(rapid.SliceOfN(text, 0, 5).Draw(rt, "texts"))
		var values []any
		for _, s := range want {
			values = append(values, s)
		}
		literal, err := pg.Array(values...)
		if err != nil {
			rt.Fatal(err)
		}
		var got pq.StringArray
		if err := db.Get(&got, `SELECT $1::text[]`, literal); err != nil {
			rt.Fatalf("%s: %v", literal, err)
		}
		if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			rt.Fatalf("%s was read as %q, want %q", literal, got, want)
		}
	})
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.FixedZone("X", -5*3600))
	for kind, v := range map[string]any{
		"bigint": int64(math.MinInt64), "boolean": true, "float8": math.Inf(-1),
		"bytea": []byte{0, '\\', 255}, "timestamptz": at, "uuid": nil,
	} {
		literal, err := pg.Array(v, nil)
		must(t, err)
		var same bool
		if err := db.Get(&same, `SELECT a[1] IS NOT DISTINCT FROM $2 AND a[2] IS NULL
			AND cardinality(a) = 2 FROM (SELECT $1::`+kind+`[] AS a) x`, literal, v); err != nil || !same {
			t.Errorf("%s: %s is not %v (%v)", kind, literal, v, err)
		}
	}
	if _, err := pg.Array(struct{}{}); err == nil {
		t.Error("Array accepts a struct")
	}
}

func TestJSONColumn(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	exec(t, db, `CREATE TABLE x (j jsonb)`)
	want := pg.JSON[map[string]int]{V: map[string]int{"a": 1}}
	exec(t, db, `INSERT INTO x VALUES ($1)`, want)
	got := pg.JSON[map[string]int]{V: map[string]int{"old": 1}}
	must(t, db.Get(&got, `SELECT j FROM x`))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	must(t, db.Get(&got, `SELECT NULL::jsonb`))
	if got.V != nil {
		t.Errorf("NULL was read as %v", got)
	}
}

func TestColumnTypesAreReadOnce(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	exec(t, db, `CREATE TABLE x (a int, b numeric(5,2), c text[])`)
	ctx := pg.WithStatements(t.Context(), pg.NewStatements(db))
	want := map[string]string{"a": "integer", "b": "numeric(5,2)", "c": "text[]"}
	for range 2 {
		must(t, pg.InTx(ctx, db, func(tx *sqlx.Tx) error {
			got, err := pg.ColumnTypes(ctx, tx, "x")
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("types %v, %v", got, err)
			}
			return nil
		}))
		exec(t, db, `ALTER TABLE x ADD d int`)
		exec(t, db, `ALTER TABLE x DROP d`)
		exec(t, db, `ALTER TABLE x ADD IF NOT EXISTS e int`)
	}
}

// Replicas that start at the same time apply each line of migrations once.
func TestReplicasMigrateOnce(t *testing.T) {
	t.Parallel()
	url, db := newDatabase(t)
	var replicas sync.WaitGroup
	for i := range 8 {
		line := []string{"one", "two"}[i%2]
		files := fstest.MapFS{"001_x.sql": {Data: []byte("-- +goose Up\nCREATE TABLE " + line +
			" (n int);\nINSERT INTO " + line + " SELECT 1 FROM pg_sleep(0.3);\n")}}
		replicas.Go(func() {
			if err := pg.Migrate(context.Background(), url, line, files); err != nil {
				t.Errorf("replica %d: %v", i, err)
			}
		})
	}
	replicas.Wait()
	for _, line := range []string{"one", "two"} {
		if n := count(t, db, `SELECT count(*) FROM `+line); n != 1 {
			t.Errorf("%s was migrated %d times", line, n)
		}
		if n := count(t, db, `SELECT max(version_id) FROM migrations_`+line); n != 1 {
			t.Errorf("%s is at version %d", line, n)
		}
	}
}

// A replica that was stopped during a migration does not block the start of a replica that has
// nothing to migrate.
func TestReplicaWithNothingToMigrateDoesNotWait(t *testing.T) {
	t.Parallel()
	raw, db := newDatabase(t) // it has been migrated
	stopped, err := db.Connx(t.Context())
	must(t, err)
	defer func() { _ = stopped.Close() }()
	_, err = stopped.ExecContext(t.Context(),
		`SELECT pg_advisory_lock(hashtextextended('migrate', 0))`)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	must(t, pg.Migrate(ctx, raw, "none", fstest.MapFS{}))
}
