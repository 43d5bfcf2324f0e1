package servertest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lib/pq"
	"golang.org/x/sync/errgroup"

	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/pg"
)

const (
	templatePrefix = "quadrille_template_"
	databasePrefix = "quadrille_test_"
)

// Database creates a database for this test and returns its URL. The database is dropped at the end
// of the test. It is a copy of a template, which migrate fills once per key. The key must therefore
// change with the migrations; their content is a good key. Database adds the migrations of package
// postgres to the key itself. The function migrate must close its connections.
func Database(t testing.TB, key string, migrate func(ctx context.Context,
	url string) error) string {
	t.Helper()
	common := pg.Migrations()
	names, err := fs.Glob(common, "*.sql")
	for _, name := range names {
		var text []byte
		if text, err = fs.ReadFile(common, name); err != nil {
			break
		}
		key += string(text)
	}
	if err != nil {
		t.Fatalf("create a database for the test: %v", err)
	}
	return DatabaseOn(t, Shared(t).PostgresURL, key, migrate)
}

// DatabaseOn is Database on other servers, without the migrations of package postgres in the key.
func DatabaseOn(t testing.TB, postgresURL, key string, migrate func(ctx context.Context,
	url string) error) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	db, err := sql.Open("postgres", postgresURL)
	if err != nil {
		t.Fatalf("create a database for the test: %v", err)
	}
	defer db.Close() //nolint:errcheck // nothing to lose
	template, err := ensureTemplate(ctx, db, postgresURL, key, migrate)
	if err != nil {
		t.Fatalf("create the template database for the tests: %v", err)
	}
	name := databasePrefix + strings.ToLower(rand.Text())
	query := fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s STRATEGY WAL_LOG", pq.QuoteIdentifier(name),
		pq.QuoteIdentifier(template))
	if _, err := db.ExecContext(ctx, query); err != nil {
		t.Fatalf("create a database for the test: %v", err)
	}
	dropAtEnd(t, postgresURL, name)
	return withDatabase(postgresURL, name)
}

// ensureTemplate creates the template if there is none. A complete template has datistemplate set,
// which is the last step. It does not allow connections, since a database in use cannot be copied.
func ensureTemplate(ctx context.Context, db *sql.DB, postgresURL, key string,
	migrate func(ctx context.Context, url string) error) (string, error) {
	sum := sha256.Sum256([]byte(key))
	name := templatePrefix + hex.EncodeToString(sum[:8])
	if done, err := templateDone(ctx, db, name); done || err != nil {
		return name, err
	}
	conn, err := db.Conn(ctx) // the lock belongs to the connection
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // it goes with db
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock(hashtextextended($1, 0))",
		name); err != nil {
		return "", err
	}
	defer conn.ExecContext(context.WithoutCancel(ctx),
		"SELECT pg_advisory_unlock_all()") //nolint:errcheck // the end of the session does it as well
	if done, err := templateDone(ctx, conn, name); done || err != nil {
		return name, err
	}
	quoted := pq.QuoteIdentifier(name)
	for _, query := range []string{"DROP DATABASE IF EXISTS " + quoted + " WITH (FORCE)",
		"CREATE DATABASE " + quoted + " TEMPLATE template0"} {
		if _, err := conn.ExecContext(ctx, query); err != nil {
			return "", err
		}
	}
	if err := migrate(ctx, withDatabase(postgresURL, name)); err != nil {
		return "", fmt.Errorf("migrate: %w", err)
	}
	// A pool may still have a connection for a moment after it was closed.
	for _, query := range []string{
		"ALTER DATABASE " + quoted + " WITH ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = " +
			pq.QuoteLiteral(name),
		"ALTER DATABASE " + quoted + " WITH IS_TEMPLATE true",
	} {
		if _, err := conn.ExecContext(ctx, query); err != nil {
			return "", err
		}
	}
	return name, nil
}

func templateDone(ctx context.Context, db interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, name string,
) (done bool, err error) {
	err = db.QueryRowContext(ctx, "SELECT datistemplate FROM pg_database WHERE datname = $1",
		name).Scan(&done)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return done, err
}

// drops has, by test and server, a group of the databases that are being dropped.
var drops sync.Map

type dropKey struct {
	t           testing.TB
	postgresURL string
}

// dropAtEnd drops the databases of one test concurrently: each drop needs a checkpoint, which they
// then share. Each drop begins in the clean-up of its database, and the clean-up of the first
// database waits for all.
func dropAtEnd(t testing.TB, postgresURL, name string) {
	key := dropKey{t, postgresURL}
	found, known := drops.LoadOrStore(key, &errgroup.Group{})
	group := found.(*errgroup.Group)
	if !known {
		t.Cleanup(func() {
			drops.Delete(key)
			if err := group.Wait(); err != nil {
				t.Errorf("drop the databases of the test: %v", err)
			}
		})
	}
	t.Cleanup(func() { group.Go(func() error { return dropDatabase(postgresURL, name) }) })
}

// dropTimeout is long, since the checkpoint of a drop may have to write the data of many tests to
// a slow disk.
const dropTimeout = 5 * time.Minute

// dropDatabase drops a database and ends the connections that a test has left open.
func dropDatabase(postgresURL, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
	defer cancel()
	db, err := sql.Open("postgres", postgresURL)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing to lose
	_, err = db.ExecContext(ctx, "DROP DATABASE IF EXISTS "+pq.QuoteIdentifier(name)+" WITH (FORCE)")
	return err
}

func withDatabase(postgresURL, name string) string {
	u, err := url.Parse(postgresURL)
	if err != nil {
		return "" // this cannot happen, since Shared has used the URL before
	}
	u.Path = "/" + name
	query := u.Query()
	if query.Get("sslmode") == "" {
		query.Set("sslmode", "disable")
		u.RawQuery = query.Encode()
	}
	return u.String()
}

// sweepers is how many old databases are dropped at the same time.
const sweepers = 16

// sweep removes the databases, vhosts and users of test processes that were killed. It is only for
// servers that were just started and have no other user.
func sweep(ctx context.Context, s *localrun.Servers) error {
	db, err := sql.Open("postgres", s.PostgresURL)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing to lose
	var names pq.StringArray
	err = db.QueryRowContext(ctx, "SELECT coalesce(array_agg(datname::text), '{}') FROM pg_database "+
		"WHERE starts_with(datname, $1)", databasePrefix).Scan(&names)
	if err != nil {
		return fmt.Errorf("find old test databases: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(sweepers)
	for _, name := range names {
		group.Go(func() error { return dropDatabase(s.PostgresURL, name) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("drop old test databases: %w", err)
	}
	return sweepBroker(ctx, s.ManagementURL, func(name string) bool {
		return strings.HasPrefix(name, brokerPrefix)
	})
}
