package rabbit

import (
	"context"
	"io"
	"net"
	"reflect"
	"sync/atomic"
	"time"
)

// Socket is a socket to cork.
type Socket struct{ *socket }

// NewSocket wraps a connection.
func NewSocket(c net.Conn) Socket { return Socket{newSocket(c)} }

func (s Socket) Cork()         { s.cork() }
func (s Socket) Uncork() error { return s.uncork() }

// WriteTimeout is how long a write may hang.
const WriteTimeout = writeTimeout

// Break makes every write of a session fail, before anybody else notices.
func (s *Session) Break(err error) {
	s.socket.mu.Lock()
	defer s.socket.mu.Unlock()
	s.socket.failed = err
}

// HalfClose is what the driver does when a connection breaks, before it closes the channels: for
// a moment the connection is closed and its channel is not.
func (s *Session) HalfClose() {
	closed := reflect.ValueOf(s.conn).Elem().FieldByName("closed")
	(*atomic.Bool)(closed.Addr().UnsafePointer()).Store(true)
}

// OpenWithin is Open with less patience for answers.
func OpenWithin(ctx context.Context, url, name string, reply time.Duration) (*Session, error) {
	return open(ctx, url, name, reply)
}

// SetReplyTimeout makes a session less patient.
func (s *Session) SetReplyTimeout(d time.Duration) { s.reply = d }

// Through returns what the driver reads when the broker sends these bytes.
func Through(r io.Reader) io.Reader { return newFrames(r) }

// CheckProperties and RepairProperties are those of a content header.
func CheckProperties(payload []byte) string {
	_, fault := checkProperties(payload)
	return fault
}

// RepairProperties returns a content header that can be decoded.
func RepairProperties(payload []byte) []byte { return repairProperties(payload, 0) }

// InHand returns the bytes of a session's deliveries that were read and are not acknowledged.
func (s *Session) InHand() int64 {
	g := s.socket.frames.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inHand
}

// SetGatePatience makes a session less patient with a gate that is shut.
func (s *Session) SetGatePatience(d time.Duration) { s.socket.frames.gate.patience = d }
