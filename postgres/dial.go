package postgres

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// The bounds of a line to the server. The driver never stops to wait for an answer, whatever its context
// says: what ends the wait is the connection.
const (
	// A server that has vanished acknowledges nothing: its line is cut after so long.
	unacknowledged = 15 * time.Second
	keepAliveIdle  = 5 * time.Second
	keepAliveCount = 2
	// A server that is there, or a proxy in its place, says something within this, or its line is cut. It
	// is longer than any statement may take (migrationTimeout).
	silence = 11 * time.Minute
)

// dialer connects for the driver.
type dialer struct{}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialTimeout(network, address, connectTimeout)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveIdle, Count: keepAliveCount},
		Control:         bound,
	}).DialContext(ctx, network, address)
	if tcp, ok := c.(*net.TCPConn); ok {
		return &line{TCPConn: tcp}, nil
	}
	return c, err
}

// line is a connection that does not wait for ever.
type line struct {
	*net.TCPConn
	limited atomic.Bool // by a deadline of the driver's own, as that of the handshake
}

func (l *line) SetDeadline(t time.Time) error {
	l.limited.Store(!t.IsZero())
	return l.TCPConn.SetDeadline(t)
}

func (l *line) SetReadDeadline(t time.Time) error {
	l.limited.Store(!t.IsZero())
	return l.TCPConn.SetReadDeadline(t)
}

func (l *line) Read(p []byte) (int, error) {
	if !l.limited.Load() {
		if err := l.TCPConn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return 0, err
		}
	}
	return l.TCPConn.Read(p)
}
