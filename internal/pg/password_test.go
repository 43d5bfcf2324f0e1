package pg_test

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

// The password of a file is read for each session, also by a pool that is open.
func TestChangedPasswordIsReadAgain(t *testing.T) {
	t.Parallel()
	postgres := servertest.PrivatePostgres(t).PostgresURL
	admin := pool(t, postgres)
	exec(t, admin, `CREATE ROLE somebody LOGIN PASSWORD 'one'`)
	path := filepath.Join(t.TempDir(), "pgpass")
	write := func(password string) {
		must(t, os.WriteFile(path, []byte("*:*:*:somebody:"+password+"\n"), 0o600))
	}
	write("one")
	u, err := url.Parse(postgres)
	must(t, err)
	u.User = url.User("somebody")
	u.RawQuery += "&" + url.Values{"passfile": {path}}.Encode()
	db := pool(t, u.String())
	must(t, db.PingContext(t.Context()))

	exec(t, admin, `ALTER ROLE somebody PASSWORD 'two'`)
	db.SetMaxIdleConns(0) // the next statement needs a new session
	if err := db.PingContext(t.Context()); err == nil || pg.WaitingHelps(err) {
		t.Errorf("with the old password: %v", err)
	}
	write("two")
	must(t, db.PingContext(t.Context()))
}
