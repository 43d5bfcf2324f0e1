package servertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/localrun"
)

func TestSharedAndPrivateServersAreSeparate(t *testing.T) {
	shared := Shared(t)
	if Shared(t) != shared {
		t.Error("the second call returns other servers")
	}
	if shared.Given {
		return
	}
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := localrun.Dir(root, "test")
	running, err := localrun.Running(dir)
	if err != nil || running.AMQPURL != shared.AMQPURL || running.PostgresURL != shared.PostgresURL {
		t.Errorf("another process would have other servers: %v", err)
	}
	private := PrivatePostgres(t)
	execSQL(t, private.PostgresURL, "CREATE ROLE somebody")
	if private.PostgresURL == shared.PostgresURL {
		t.Fatal("private servers are the shared ones")
	}
	if err := private.KillPostgres(); err != nil {
		t.Fatal(err)
	}
	execSQL(t, shared.PostgresURL, "SELECT 1")
	if _, err := localrun.Running(dir); err != nil {
		t.Error(err)
	}
	// A killed PostgreSQL leaves shared memory behind, which only its next start removes.
	if err := private.RestartPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestDatabase(t *testing.T) {
	var migrations atomic.Int32
	migrate := func(ctx context.Context, url string) error {
		migrations.Add(1)
		db, err := sql.Open("postgres", url)
		if err != nil {
			return err
		}
		_, err = db.ExecContext(ctx, "CREATE TABLE made (id int)")
		return errors.Join(err, db.Close())
	}
	key := "TestDatabase " + newName()
	t.Cleanup(func() { dropTemplate(t, key) })

	// A migration that fails leaves an incomplete template.
	s := Shared(t)
	db, err := sql.Open("postgres", s.PostgresURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test
	broken := errors.New("broken")
	_, err = ensureTemplate(t.Context(), db, s.PostgresURL, key,
		func(ctx context.Context, url string) error {
			return errors.Join(migrate(ctx, url), broken)
		})
	if !errors.Is(err, broken) {
		t.Fatalf("a broken migration: %v", err)
	}
	migrations.Store(0)

	var urls sync.Map
	t.Run("clones", func(t *testing.T) {
		for range 6 {
			t.Run("clone", func(t *testing.T) {
				t.Parallel()
				url := Database(t, key, migrate)
				if !strings.Contains(url, "sslmode=disable") {
					t.Error("the URL lacks sslmode=disable")
				}
				execSQL(t, url, "INSERT INTO made VALUES (1)")
				if _, duplicate := urls.LoadOrStore(url, true); duplicate {
					t.Error("two tests have the same database")
				}
			})
		}
	})
	if migrations.Load() != 1 {
		t.Errorf("migrated %d times", migrations.Load())
	}
	urls.Range(func(key, _ any) bool {
		u, err := url.Parse(key.(string))
		if err != nil {
			t.Fatal(err)
		}
		var left bool
		err = db.QueryRowContext(t.Context(), "SELECT exists(SELECT FROM pg_database WHERE datname = $1)",
			strings.TrimPrefix(u.Path, "/")).Scan(&left)
		if err != nil || left {
			t.Errorf("a database outlived its test: %v %v", left, err)
		}
		return true
	})
}

// dropTemplate removes a template that no other test uses.
func dropTemplate(t *testing.T, key string) {
	db, err := sql.Open("postgres", Shared(t).PostgresURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test
	name, err := ensureTemplate(context.Background(), db, Shared(t).PostgresURL, key,
		func(context.Context, string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"ALTER DATABASE %s WITH IS_TEMPLATE false",
		"DROP DATABASE %s WITH (FORCE)"} {
		if _, err := db.ExecContext(context.Background(), fmt.Sprintf(query, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVhostAndUser(t *testing.T) {
	var gone string
	t.Run("vhost", func(t *testing.T) {
		adminURL, managementURL := Vhost(t)
		gone = adminURL
		admin := channel(t, adminURL)
		if _, err := admin.QueueDeclare("orders", true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		reader := User(t, adminURL, managementURL, "reader", "", "", "^orders$")
		if _, err := channel(t, reader).Consume("orders", "", true, false, false, false,
			nil); err != nil {
			t.Errorf("a reader cannot read: %v", err)
		}
		_, err := channel(t, reader).QueueDeclare("other", true, false, false, false, nil)
		var refused *amqp.Error
		if !errors.As(err, &refused) || refused.Code != amqp.AccessRefused {
			t.Errorf("a reader declares a queue: %v", err)
		}
	})
	if conn, err := amqp.Dial(gone); err == nil {
		_ = conn.Close()
		t.Error("the vhost outlived its test")
	}
}

func TestSweep(t *testing.T) {
	s := Private(t)
	postgresURL := DatabaseOn(t, s.PostgresURL, "sweep",
		func(context.Context, string) error { return nil })
	amqpURL := VhostOn(t, s.AMQPURL, s.ManagementURL)
	userURL := User(t, amqpURL, s.ManagementURL, "somebody", "", "", "")
	if err := sweep(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("postgres", postgresURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test
	if err := db.PingContext(t.Context()); err == nil {
		t.Error("the database of a dead test still exists")
	}
	for _, url := range []string{amqpURL, userURL} {
		if conn, err := amqp.Dial(url); err == nil {
			_ = conn.Close()
			t.Error("the vhost of a dead test still exists")
		}
	}
	// The clean-up of this test would fail without the vhost and the user.
	admin, err := url.Parse(amqpURL)
	if err != nil {
		t.Fatal(err)
	}
	manage(t, s.ManagementURL, "PUT", "/api/vhosts/"+strings.TrimPrefix(admin.Path, "/"), struct{}{})
	user, err := url.Parse(userURL)
	if err != nil {
		t.Fatal(err)
	}
	manage(t, s.ManagementURL, "PUT", "/api/users/"+user.User.Username(),
		map[string]string{"password": "x", "tags": ""})
}

func execSQL(t *testing.T, url, query string) {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func channel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
