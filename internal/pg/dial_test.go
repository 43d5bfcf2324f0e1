package pg_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// silentProxy starts a proxy in front of the server and returns its address. After silence it still
// accepts data but forwards nothing, like a middlebox that has lost its tables. cut closes all
// connections.
func silentProxy(t *testing.T, raw string) (proxied string, silence func() (cut func())) {
	t.Helper()
	u, err := url.Parse(raw)
	must(t, err)
	server := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	u.Host = l.Addr().String()
	var mu sync.Mutex
	var conns []net.Conn
	silent, ended := false, false
	pass := func(to, from net.Conn) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			mu.Lock()
			quiet := silent
			mu.Unlock()
			if !quiet && err == nil {
				_, err = to.Write(buffer[:n])
			}
			if err != nil {
				if !quiet { // a silent proxy does not forward the end either
					_ = to.Close()
				}
				return
			}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, client, upstream)
			late := ended
			mu.Unlock()
			if late { // accepted while the others were being closed
				_, _ = client.Close(), upstream.Close()
			}
			go pass(upstream, client)
			go pass(client, upstream)
		}
	}()
	cut := func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		ended = true
		for _, c := range conns {
			_ = c.Close()
		}
	}
	t.Cleanup(cut)
	return u.String(), func() func() {
		mu.Lock()
		defer mu.Unlock()
		silent = true
		return cut
	}
}

// A Unix socket has no such bounds, and needs none.
func TestSocketOnThisMachine(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	c, err := pg.Dial(t.Context(), "unix", l.Addr().String())
	must(t, err)
	must(t, c.Close())
}

// Alive returns an error in bounded time if the database does not answer.
func TestSilentDatabaseIsNotAlive(t *testing.T) {
	t.Parallel()
	url, _ := newDatabase(t)
	silent, silence := silentProxy(t, url)
	db := pool(t, silent)
	must(t, pg.Alive(t.Context(), db))
	cut := silence()
	defer cut()
	answered := make(chan error, 1)
	go func() { answered <- pg.Alive(t.Context(), db) }()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	select {
	case err := <-answered:
		if err == nil {
			t.Error("a database that does not answer is alive")
		}
	case <-ctx.Done():
		t.Errorf("Alive has not returned within %s", waitTimeout)
	}
}

// Connecting to a server that accepts the connection and never answers fails after the time-out.
func TestConnectingIsBounded(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	db := pool(t, "postgres://nobody@"+l.Addr().String()+"/x?sslmode=disable&connect_timeout=1")
	refused := make(chan error, 1)
	go func() { refused <- db.PingContext(context.WithoutCancel(t.Context())) }()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	select {
	case err := <-refused:
		if err == nil {
			t.Error("connected to a server that never answers")
		}
	case <-ctx.Done():
		t.Errorf("Ping has not returned within %s", waitTimeout)
	}
}

// A peer that has vanished acknowledges nothing. The kernel must close the connection, since the
// driver would wait forever.
func TestEveryConnectionIsBounded(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	c, err := pg.Dial(t.Context(), "tcp", l.Addr().String())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	userTimeout, idle, count := pg.ConnectionBounds(t, c)
	if userTimeout != 15_000 || idle != 5 || count != 2 {
		t.Errorf("TCP_USER_TIMEOUT %d ms, keep-alive after %d s, %d times", userTimeout, idle, count)
	}
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Error(err)
	}
}
