package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/resilience"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// database returns the URL of a database with the limiter's table.
func database(t testing.TB) string {
	t.Helper()
	key, err := fs.ReadFile(resilience.Migrations(), "001_rate_limit.sql")
	if err != nil {
		t.Fatal(err)
	}
	return servertest.Database(t, string(key), func(ctx context.Context, url string) error {
		return pg.Migrate(ctx, url, "resilience", resilience.Migrations())
	})
}

func pool(t testing.TB, url string) *sqlx.DB {
	t.Helper()
	db, err := pg.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// Two replicas share the tokens of a key, and another key has its own. A caller that waits for the
// time in the error gets a token.
func TestLimitIsSharedByReplicasAndFairToKeys(t *testing.T) {
	t.Parallel()
	url := database(t)
	var replicas []resilience.Limit
	for range 2 {
		replicas = append(replicas, resilience.Limit{DB: pool(t, url), Rate: 0.1, Burst: 5})
	}
	made := map[string]int{}
	for i := range 20 {
		for _, key := range []string{"ada", "bob"} {
			err := replicas[i%2].Guard(key)(t.Context(),
				func(context.Context) error { made[key]++; return nil })
			after, refused := notMade(err)
			if err != nil && !refused || refused && (after <= 0 || after > 10*time.Second) {
				t.Fatalf("%v, after %s", err, after)
			}
		}
	}
	if made["ada"] != 5 || made["bob"] != 5 {
		t.Errorf("calls %v, want 5 each", made)
	}
	quick := resilience.Limit{DB: pool(t, url), Rate: 20, Burst: 1}
	if err := quick.Take(t.Context(), "eve"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		for {
			after, refused := notMade(quick.Take(t.Context(), "eve"))
			if !refused {
				break
			}
			if after > 50*time.Millisecond {
				t.Fatalf("the wait is %s, with a token every 50 ms", after)
			}
			timer := time.NewTimer(after)
			<-timer.C
		}
	}
}

// While the database does not answer, no call is made, and it may be retried soon.
func TestLimitWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	db := pool(t, database(t))
	_ = db.Close()
	err := resilience.Limit{DB: db, Rate: 1, Burst: 1}.Guard("ada")(t.Context(),
		func(context.Context) error {
			t.Error("the call was made")
			return nil
		})
	if after, refused := notMade(err); !refused || after != time.Second {
		t.Errorf("error %v", err)
	}
}

// BenchmarkLimit measures the cost of a token, compared to that of the cheapest query.
func BenchmarkLimit(b *testing.B) {
	db := pool(b, database(b))
	b.Run("select 1", func(b *testing.B) {
		for b.Loop() {
			if _, err := db.Exec(`SELECT 1`); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("take", func(b *testing.B) {
		limit := resilience.Limit{DB: db, Rate: 1e6, Burst: 1000}
		for i := 0; b.Loop(); i++ {
			if err := limit.Take(b.Context(), fmt.Sprint(i%100)); err != nil &&
				!errors.As(err, new(resilience.NotMadeError)) {
				b.Fatal(err)
			}
		}
	})
}
