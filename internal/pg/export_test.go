package pg

import (
	"context"
	"net"
	"syscall"
	"testing"
)

// Dial opens a connection the way the driver does.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return dialer{}.DialContext(ctx, network, address)
}

// ConnectionBounds returns the bounds of a connection that the kernel enforces.
func ConnectionBounds(t *testing.T, c net.Conn) (userTimeout, idle, count int) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	option := func(fd uintptr, number int) int {
		value, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, number)
		if err != nil {
			failed = err
		}
		return value
	}
	err = raw.Control(func(fd uintptr) {
		userTimeout, idle, count = option(fd, tcpUserTimeout), option(fd, syscall.TCP_KEEPIDLE),
			option(fd, syscall.TCP_KEEPCNT)
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return userTimeout, idle, count
}

// CommitError exports commitError to the tests.
func CommitError(ctx context.Context, err error) error { return commitError(ctx, err) }
