package pg_test

import (
	"io"
	"net"
	neturl "net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// unixSocketTo opens a Unix socket that forwards to the server of a URL, and returns its directory.
func unixSocketTo(t *testing.T, u *neturl.URL) string {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", u.Host)
			if err != nil {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(server, c); _ = server.Close() }()
			go func() { _, _ = io.Copy(c, server); _ = c.Close() }()
		}
	}()
	return dir
}

// Every form of an address connects to the same database.
func TestEveryFormOfAddressConnects(t *testing.T) {
	t.Parallel()
	raw, _ := newDatabase(t)
	u, err := neturl.Parse(raw)
	must(t, err)
	dir := unixSocketTo(t, u)
	password, _ := u.User.Password()
	login, name := neturl.UserPassword(u.User.Username(), password).String(),
		strings.TrimPrefix(u.Path, "/")
	pairs := " user=" + u.User.Username() + " password='" + password + "' dbname=" + name
	encoded := strings.ReplaceAll(dir, "/", "%2F")
	for _, address := range []string{
		raw, "postgresql" + strings.TrimPrefix(raw, "postgres"),
		"postgres:///" + name + "?host=" + dir + "&user=" + u.User.Username() + "&password=" + password,
		"postgres://" + login + "@/" + name + "?host=" + dir,
		"postgres://" + login + "@/" + name + "?host=" + encoded + "&port=5432&sslmode=disable",
		"postgres://" + login + "@" + encoded + "/" + name,
		"postgres://" + login + "@" + strings.ReplaceAll(encoded, "%2F", "%2f") + ":5432/" + name +
			"?statement_timeout=1000",
		"postgres://" + login + "@127.0.0.1:1," + u.Host + "/" + name + "?sslmode=disable",
		"postgres://" + login + "@" + u.Host + ",127.0.0.1:1/" + name +
			"?sslmode=disable&target_session_attrs=read-write",
		"host=127.0.0.1," + u.Hostname() + " port=1," + u.Port() + pairs + " sslmode=disable",
		"host=" + dir + pairs,
		"host = '" + dir + "'  port=5432" + pairs + " sslmode=disable",
		"host=" + u.Hostname() + " port=" + u.Port() + pairs + " sslmode=disable",
		"postgres://" + login + "@nobody.invalid,127.0.0.1:" + "/" + name + "?sslmode=disable&port=1," +
			u.Port(),
	} {
		shown := strings.ReplaceAll(address, password, "…")
		canonical, err := pg.Address(address)
		if err != nil {
			t.Errorf("%s: %v", shown, err)
			continue
		}
		if again, err := pg.Address(canonical); err != nil || again != canonical {
			t.Errorf("%s becomes another address when it is read again: %v", shown, err)
		}
		if strings.Contains(address, "nobody.invalid") {
			continue // a list of hosts is tried by the driver alone
		}
		db := pool(t, address)
		var got string
		if err := db.GetContext(t.Context(), &got, `SELECT current_database()`); err != nil ||
			got != name {
			t.Errorf("%s: %q, %v", shown, got, err)
		}
		if strings.Contains(address, "host") && !strings.Contains(address, "search_path") {
			must(t, pg.Migrate(t.Context(), address, "x", files(tableStep)))
		}
	}
}

func TestMalformedAddressIsRefused(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"":                                   "database URL: want",
		"postgres:///x":                      "database URL: want",
		"mysql://u:hunter2@h/x":              "database URL: want",
		"postgres://u:hunter2@h/x":           "sslmode is not set",
		"host=h dbname=x password=hunter2":   "sslmode is not set",
		"host='/var/run password=hunter2":    "database URL: want",
		"hunter2":                            "database URL: want",
		"=hunter2":                           "database URL: want",
		"user name=hunter2":                  "database URL: want",
		"postgres://u:hunter2@%zz/x":         "database URL: want",
		"postgres://u:hunter2@%2/x":          "database URL: want",
		"postgres://u:hunter2@h/x?a=%zz":     "database URL: want",
		"postgres://u:hunter2@example%2Fx/x": "database URL: want",
	} {
		got, err := pg.Address(address)
		if err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q, %v", address, got, err)
		}
	}
	for pairs, want := range map[string]string{
		"host=a,b dbname=x sslmode=disable": "postgres:///x?host=a%2Cb&sslmode=disable" +
			"&target_session_attrs=read-write",
		"host=a,b dbname=x sslmode=disable target_session_attrs=any": "postgres:///x?host=a%2Cb" +
			"&sslmode=disable&target_session_attrs=any",
		`host=/s dbname=x password='it\'s \\ secret'`: `postgres://:it%27s%20%5C%20secret@/x?host=%2Fs`,
		"host=/s\n dbname = 'a b' user=ada":           "postgres://ada@/a%20b?host=%2Fs",
		"host=@abstract dbname=x password=''":         "postgres:///x?host=%40abstract",
	} {
		if got, err := pg.Address(pairs); err != nil || got != want {
			t.Errorf("%s: %q, %v", pairs, got, err)
		}
	}
}
