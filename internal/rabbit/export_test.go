package rabbit

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"reflect"
	"sync/atomic"
	"time"
)

// Socket exports socket.
type Socket struct{ *socket }

// NewSocket wraps a connection.
func NewSocket(c net.Conn) Socket { return Socket{newSocket(c)} }

func (s Socket) Cork()         { s.cork() }
func (s Socket) Uncork() error { return s.uncork() }

// WriteTimeout exports writeTimeout.
const WriteTimeout = writeTimeout

// Break makes every write of a session fail although its connection is open.
func (s *Session) Break(err error) {
	s.socket.mu.Lock()
	defer s.socket.mu.Unlock()
	s.socket.failed = err
}

// HalfClose puts the driver into the state that lasts for a moment when a connection breaks: the
// connection is closed and its channel is still open.
func (s *Session) HalfClose() {
	closed := reflect.ValueOf(s.conn).Elem().FieldByName("closed")
	(*atomic.Bool)(closed.Addr().UnsafePointer()).Store(true)
}

// OpenWithin is Open with another time-out for answers.
func OpenWithin(ctx context.Context, url, name string, timeout time.Duration) (*Session, error) {
	return open(ctx, url, name, timeout)
}

// SetReplyTimeout changes the time-out of a session for answers.
func (s *Session) SetReplyTimeout(d time.Duration) { s.replyTimeout = d }

// Through returns the bytes that the driver reads if the broker sends those of r.
func Through(r io.Reader) io.Reader { return newFrames(r) }

// CheckProperties returns the fault of a content header, or "".
func CheckProperties(payload []byte) string {
	_, fault := checkProperties(payload)
	return fault
}

// RepairProperties exports repairProperties, without a bound on the size.
func RepairProperties(payload []byte) []byte { return repairProperties(payload, 0) }

// UnackedBytes returns the bytes of a session's unacknowledged deliveries.
func (s *Session) UnackedBytes() int64 {
	g := s.socket.frames.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bytes
}

// SetGateTimeout changes how long the gate of a session may be closed.
func (s *Session) SetGateTimeout(d time.Duration) { s.socket.frames.gate.timeout = d }

// ConnectionOf returns the connection of a consumer as the management API lists it.
func ConnectionOf(consumer string) (string, error) {
	var s subscription
	err := json.Unmarshal([]byte(consumer), &s)
	return s.Channel.Connection, err
}

// SetRenewAfter changes the least age at which a refused route ends the session.
func (p *Publisher) SetRenewAfter(d time.Duration) { p.renewAfter = d }
