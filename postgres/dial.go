package postgres

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// The bounds of a line to the server. The driver never stops to wait for an answer, whatever its
// context says: what ends the wait is the connection.
const (
	// A server that has vanished acknowledges nothing: its line is cut after so long.
	unacknowledged = 15 * time.Second
	keepAliveIdle  = 5 * time.Second
	keepAliveCount = 2
	// A server that is there, or a proxy in its place, says something within this, or its line is cut.
	// It is longer than any statement may take (migrationTimeout).
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
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveIdle,
			Count: keepAliveCount},
		Control: bound,
	}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	failure, _ := ctx.Value(failureKey{}).(*failure)
	if tcp, ok := c.(*net.TCPConn); ok {
		return &netConn{TCPConn: tcp, failure: failure}, nil
	}
	return socket{c, failure}, nil
}

// failure is what a line failed with while a session was made on it: of a write the driver returns
// an error that hides it.
type failure struct{ first atomic.Pointer[error] }

type failureKey struct{}

func (f *failure) note(err error) {
	if f != nil && err != nil {
		f.first.CompareAndSwap(nil, &err)
	}
}

// of returns the failure of the line in place of the driver's error, unless that is the server's
// answer.
func (f *failure) of(err error) error {
	if noted := f.first.Load(); noted != nil && answerOf(err) == nil {
		return fmt.Errorf("connect to the database: %w", *noted)
	}
	return err
}

// socket is a connection within this machine.
type socket struct {
	net.Conn
	failure *failure
}

func (s socket) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.failure.note(err)
	return n, err
}

// netConn is a connection that does not wait for ever.
type netConn struct {
	*net.TCPConn
	limited atomic.Bool // by a deadline of the driver's own, as that of the handshake
	failure *failure
}

func (l *netConn) Write(p []byte) (int, error) {
	n, err := l.TCPConn.Write(p)
	l.failure.note(err)
	return n, err
}

func (l *netConn) SetDeadline(t time.Time) error {
	l.limited.Store(!t.IsZero())
	return l.TCPConn.SetDeadline(t)
}

func (l *netConn) SetReadDeadline(t time.Time) error {
	l.limited.Store(!t.IsZero())
	return l.TCPConn.SetReadDeadline(t)
}

func (l *netConn) Read(p []byte) (int, error) {
	if !l.limited.Load() {
		if err := l.TCPConn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return 0, err
		}
	}
	return l.TCPConn.Read(p)
}
