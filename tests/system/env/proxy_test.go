package env

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
)

// A proxy that is down refuses connections, no other program gets its port, and it comes up again
// on the same port.
func TestProxyKeepsItsPort(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	p, url := NewProxy(t, server.URL)
	// This listener does not set SO_REUSEADDR, like a program that requests any free port.
	polite := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var refused error
		err := c.Control(func(fd uintptr) {
			refused = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
		})
		return errors.Join(err, refused)
	}}
	for range 3 {
		p.Down()
		if conn, err := net.Dial("tcp", p.address); err == nil {
			_ = conn.Close()
			t.Error("the proxy is down and accepts a connection")
		}
		if other, err := polite.Listen(t.Context(), "tcp", p.address); err == nil {
			_ = other.Close()
			t.Error("the proxy is down, and another program gets its port")
		}
		p.Up()
		answer, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
	}
}
