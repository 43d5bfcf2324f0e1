package servertest

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/localrun"
)

// Standby is a synchronous standby of a PostgreSQL that a test has for itself.
type Standby struct {
	process
	PostgresURL string // of the same superuser, database "postgres"
}

// NewStandby starts a standby, which ends with the test, and returns when the primary waits for it
// with every commit. The standby uses the URL via, which may lead through a proxy.
func NewStandby(t testing.TB, primaryURL, via string) *Standby {
	t.Helper()
	_, uid, gid, err := localrun.PostgresAccount()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(localrun.TempDir(), "quadrille-standby-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	port := freePort(t)
	cmd, err := localrun.StandbyCommand(ctx, via, "standby1", filepath.Join(dir, "standby"), port)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(primaryURL)
	if err != nil {
		t.Fatal("start a standby: the URL of the primary cannot be parsed")
	}
	u.Host = fmt.Sprintf("127.0.0.1:%d", port)
	s := &Standby{PostgresURL: u.String()}
	s.launch(t, cmd)
	t.Cleanup(func() { s.end(syscall.SIGQUIT) })
	for _, query := range []string{`ALTER SYSTEM SET synchronous_standby_names = 'standby1'`,
		`SELECT pg_reload_conf()`} {
		if err := execOn(ctx, primaryURL, query); err != nil {
			t.Fatal(err)
		}
	}
	err = localrun.Poll(ctx, 50*time.Millisecond, func() (bool, error) {
		return execOn(ctx, primaryURL, `SELECT 1 / count(*) FROM pg_stat_replication
			WHERE sync_state = 'sync'`) == nil, nil
	})
	if err != nil {
		log, _ := os.ReadFile(cmd.Dir + ".log")
		t.Fatalf("the standby does not follow: %v; its log:\n%s", err, log)
	}
	return s
}

// Promote makes the standby a primary, and returns when it accepts writes.
func (s *Standby) Promote(t testing.TB) {
	t.Helper()
	if err := execOn(t.Context(), s.PostgresURL, `SELECT pg_promote()`); err != nil {
		t.Fatalf("promote the standby: %v", err)
	}
}

func execOn(ctx context.Context, databaseURL, query string) error {
	db, err := sql.Open("postgres", databaseURL)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing to lose
	_, err = db.ExecContext(ctx, query)
	return err
}
