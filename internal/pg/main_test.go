package pg_test

import (
	"context"
	"flag"
	"os"
	"testing"
	"testing/fstest"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(writerDatabase); url != "" {
		db, err := pg.Open(url)
		if err != nil {
			panic(err)
		}
		writeWhileLeading(context.Background(), db)
	}
	_ = flag.Set("test.parallel", "8") // the tests mostly wait for the server
	leaks.Main(m)
}

const waitTimeout = quadrilletest.Timeout

// newDatabase returns the URL of an empty database and a pool for it.
func newDatabase(t testing.TB) (string, *sqlx.DB) {
	t.Helper()
	url := servertest.Database(t, "postgres", func(ctx context.Context, url string) error {
		return pg.Migrate(ctx, url, "none", fstest.MapFS{})
	})
	return url, pool(t, url)
}

func pool(t testing.TB, url string) *sqlx.DB {
	t.Helper()
	db, err := pg.Open(url)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exec(t testing.TB, db sqlx.ExecerContext, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func count(t testing.TB, db sqlx.QueryerContext, query string, args ...any) (n int) {
	t.Helper()
	if err := sqlx.GetContext(t.Context(), db, &n, query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// waitFor waits until a condition is true.
func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	quadrilletest.WaitFor(t, what, func() (bool, string) { return f(), "" })
}
