package pg_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

func TestErrorsHoldNoPassword(t *testing.T) {
	t.Parallel()
	shared, err := url.Parse(servertest.Shared(t).PostgresURL)
	must(t, err)
	for name, bad := range map[string]string{
		"wrong password": "postgres://nobody:hunter2@" + shared.Host + "/postgres?sslmode=disable",
		"password as option": "postgres://" + shared.Host +
			"/postgres?sslmode=disable&user=nobody&password=hunter2",
		"no server":    "postgres://nobody:hunter2@127.0.0.1:1/x?sslmode=disable",
		"no such host": "postgres://nobody:hunter2@host.invalid/x?sslmode=disable",
		"bad escape":   "postgres://nobody:hunter2%zz@127.0.0.1/x?sslmode=disable",
		"bad port":     "postgres://nobody:hunter2@127.0.0.1:port/x?sslmode=disable",
		"bad scheme":   "mysql://nobody:hunter2@127.0.0.1/x?sslmode=disable",
		"no sslmode":   "postgres://nobody:hunter2@127.0.0.1/x",
		"bad sslmode":  "postgres://nobody:hunter2@127.0.0.1/x?sslmode=hunter2",
		"bad option":   "postgres://nobody:hunter2@127.0.0.1/x?sslmode=disable&connect_timeout=hunter2",
		"key=value":    "user=nobody password=hunter2 host=127.0.0.1",
	} {
		db, err := pg.Open(bad)
		if err == nil {
			err = db.PingContext(t.Context())
			_ = db.Close()
		}
		if err == nil {
			t.Errorf("%s: connected", name)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error holds the password: %v", name, err)
		}
		if err := pg.Migrate(t.Context(), bad, "x", nil); err == nil ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: migrating: %v", name, err)
		}
	}
}

func TestEverySessionIsBounded(t *testing.T) {
	t.Parallel()
	raw, db := newDatabase(t)
	settings := func() (got string) {
		must(t, db.Get(&got, `SELECT concat_ws(' ', current_setting('statement_timeout'),
			current_setting('lock_timeout'),
			current_setting('idle_in_transaction_session_timeout'))`))
		return got
	}
	if got := settings(); got != "30s 10s 30s" {
		t.Errorf("bounds %s", got)
	}
	db = pool(t, raw+"&statement_timeout=1000&lock_timeout=2000")
	if got := settings(); got != "1s 2s 30s" {
		t.Errorf("bounds that the URL sets: %s", got)
	}
}

func TestCheckDurable(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	conn, err := db.Connx(t.Context())
	must(t, err)
	defer func() { _ = conn.Close() }()
	must(t, pg.CheckDurable(t.Context(), conn))
	exec(t, conn, `SET synchronous_commit = off`)
	if err := pg.CheckDurable(t.Context(), conn); err == nil ||
		!strings.Contains(err.Error(), "synchronous_commit is off") {
		t.Errorf("error %v", err)
	}
	must(t, pg.Alive(t.Context(), db))
	must(t, db.Close())
	if pg.Alive(t.Context(), db) == nil {
		t.Error("a closed pool is alive")
	}
}
