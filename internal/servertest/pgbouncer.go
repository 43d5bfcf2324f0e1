package servertest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/localrun"
)

// pgBouncer is the path of the program in Debian's package.
const pgBouncer = "/usr/sbin/pgbouncer"

// PgBouncer starts a PgBouncer in front of a database until the end of the test, and returns its
// address. Except for the mode (session, transaction or statement) it has the default settings.
func PgBouncer(t testing.TB, databaseURL, mode string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal("start PgBouncer: the URL of the database cannot be read")
	}
	attr, uid, gid, err := localrun.PostgresAccount()
	if err != nil {
		t.Fatalf("start PgBouncer: %v", err)
	}
	attr.Setsid = false // so that it ends with the test
	dir, err := os.MkdirTemp(localrun.TempDir(), "quadrille-pgbouncer-")
	if err != nil {
		t.Fatalf("start PgBouncer: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatalf("start PgBouncer: %v", err)
	}
	password, _ := u.User.Password()
	config := filepath.Join(dir, "pgbouncer.ini")
	for range 5 { // another program may take the port meanwhile
		port := freePort(t)
		err := localrun.WriteFor(config, fmt.Sprintf("[databases]\n* = host=%s port=%s user=%s "+
			"password=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\n"+
			"unix_socket_dir =\nauth_type = any\npool_mode = %s\n", u.Hostname(), u.Port(),
			u.User.Username(), password, port, mode), uid, gid)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(pgBouncer, config) //nolint:noctx // the clean-up ends it
		cmd.SysProcAttr = attr
		if err := cmd.Start(); err != nil {
			t.Fatalf("start PgBouncer (scripts/install-servers.sh installs it): %v", err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if !answers(address, ended) {
			continue
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			<-ended
		})
		u.Host = address
		return u.String()
	}
	t.Fatal("start PgBouncer: it ended at once in 5 attempts")
	return ""
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// answers waits until a program listens, and returns false if it has ended.
func answers(address string, ended <-chan error) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return false
		case <-tick.C:
			if c, err := net.Dial("tcp", address); err == nil {
				_ = c.Close()
				return true
			}
		}
	}
}
