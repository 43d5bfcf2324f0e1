package pg

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// The bounds of a connection to the server. The driver waits for an answer even after its context
// has ended, so the connection itself must end the wait.
const (
	// A server that has vanished acknowledges nothing. The kernel closes the connection then.
	unacknowledgedTimeout = 15 * time.Second
	keepAliveIdle         = 5 * time.Second
	keepAliveCount        = 2
	// A proxy acknowledges data even if the server behind it has vanished. A connection on which
	// nothing arrives for this long fails. It is longer than any statement may take
	// (migrationTimeout).
	maxSilence = 11 * time.Minute
)

// dialer opens the driver's connections.
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
		Control: setUserTimeout,
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

// failure is the first error of a connection while a session was being opened on it. The driver
// replaces an error of a write by a less precise one.
type failure struct{ first atomic.Pointer[error] }

type failureKey struct{}

func (f *failure) note(err error) {
	if f != nil && err != nil {
		f.first.CompareAndSwap(nil, &err)
	}
}

// cause returns the failure of the connection in place of err, the driver's error, unless err came
// from the server.
func (f *failure) cause(err error) error {
	if noted := f.first.Load(); noted != nil && serverError(err) == nil {
		return fmt.Errorf("connect to the database: %w", *noted)
	}
	return err
}

// socket is a connection over a Unix socket.
type socket struct {
	net.Conn
	failure *failure
}

func (s socket) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.failure.note(err)
	return n, err
}

// netConn is a connection whose reads end after maxSilence.
type netConn struct {
	*net.TCPConn
	limited atomic.Bool // the driver has set a deadline itself, such as that of the handshake
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
		if err := l.TCPConn.SetReadDeadline(time.Now().Add(maxSilence)); err != nil {
			return 0, err
		}
	}
	return l.TCPConn.Read(p)
}
