package env

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
)

// A line that is down refuses, nobody else gets its port, and it comes up again there.
func TestProxyKeepsItsPort(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	l, url := NewProxy(t, server.URL)
	// as one that asks for any port
	polite := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var refused error
		err := c.Control(func(fd uintptr) {
			refused = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
		})
		return errors.Join(err, refused)
	}}
	for range 3 {
		l.Down()
		if conn, err := net.Dial("tcp", l.address); err == nil {
			_ = conn.Close()
			t.Error("it is down and takes a connection")
		}
		if other, err := polite.Listen(t.Context(), "tcp", l.address); err == nil {
			_ = other.Close()
			t.Error("it is down, and another program gets its port")
		}
		l.Up()
		answer, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
	}
}
