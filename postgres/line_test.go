package postgres_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"github.com/quadrille-go/quadrille/postgres"
)

// muted puts a proxy before the server. Once muted it takes what is sent and passes nothing on, as
// a middlebox does that has lost its tables; unmute cuts all lines.
func muted(t *testing.T, raw string) (proxied string, mute func() (unmute func())) {
	t.Helper()
	u, err := url.Parse(raw)
	must(t, err)
	server := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	u.Host = l.Addr().String()
	var mu sync.Mutex
	var lines []net.Conn
	silent := false
	pass := func(to, from net.Conn) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			mu.Lock()
			quiet := silent
			mu.Unlock()
			if quiet && err == nil {
				continue
			}
			if err == nil {
				_, err = to.Write(buffer[:n])
			}
			if err != nil {
				if !quiet { // nor does it pass an end on
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
			there, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			mu.Lock()
			lines = append(lines, client, there)
			mu.Unlock()
			go pass(there, client)
			go pass(client, there)
		}
	}()
	cut := func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range lines {
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

// A socket on this machine has no such bounds, and needs none.
func TestSocketOnThisMachine(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	c, err := postgres.Dial(t.Context(), "unix", l.Addr().String())
	must(t, err)
	must(t, c.Close())
}

// A database that does not answer is not alive, within a bound.
func TestSilentDatabaseIsNotAlive(t *testing.T) {
	t.Parallel()
	url, _ := fresh(t)
	silent, mute := muted(t, url)
	db := pool(t, silent)
	must(t, postgres.Alive(t.Context(), db))
	unmute := mute()
	defer unmute()
	answered := make(chan error, 1)
	go func() { answered <- postgres.Alive(t.Context(), db) }()
	patient, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case err := <-answered:
		if err == nil {
			t.Error("a database that does not answer is alive")
		}
	case <-patient.Done():
		t.Error("nobody knows whether it is alive")
	}
}

// A server that takes the connection and never answers is given up after the time to connect.
func TestConnectingIsBounded(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	db := pool(t, "postgres://nobody@"+l.Addr().String()+"/x?sslmode=disable&connect_timeout=1")
	refused := make(chan error, 1)
	go func() { refused <- db.PingContext(context.WithoutCancel(t.Context())) }()
	patient, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case err := <-refused:
		if err == nil {
			t.Error("connected")
		}
	case <-patient.Done():
		t.Error("it waits for ever")
	}
}

// Whoever has vanished acknowledges nothing: the kernel cuts the line, for the driver itself would
// wait.
func TestEveryConnectionIsBounded(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	c, err := postgres.Dial(t.Context(), "tcp", l.Addr().String())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	userTimeout, idle, count := postgres.ConnectionBounds(t, c)
	if userTimeout != 15_000 || idle != 5 || count != 2 {
		t.Errorf("TCP_USER_TIMEOUT %d ms, keep-alive after %d s, %d times", userTimeout, idle, count)
	}
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Error(err)
	}
}
