package rabbit

import (
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	socketBuffer = 64 << 10
	// writeTimeout cuts a write that hangs: a broker under a memory or disk alarm stops reading, and
	// the driver's own calls cannot be interrupted.
	writeTimeout = 10 * time.Second
	// silence is how long the driver waits for a sign of life from the broker.
	silence = 3 * heartbeat
)

// socket is a connection that can hold writes back, so that a batch of publishings or acks is one
// system call instead of one each, and that reads frames.
type socket struct {
	net.Conn
	frames *frames

	mu     sync.Mutex
	corked bool
	held   []byte
	failed error // of the first write that failed: nothing may follow it
}

func newSocket(c net.Conn) *socket {
	s := &socket{Conn: c, frames: newFrames(c)}
	// The driver's deadline for the next heartbeat went on while nothing was read on purpose.
	s.frames.waited = func() { _ = c.SetReadDeadline(time.Now().Add(silence)) }
	return s
}

func (s *socket) Read(p []byte) (int, error) { return s.frames.Read(p) }

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.corked {
		return len(p), s.write(p)
	}
	s.held = append(s.held, p...)
	if len(s.held) >= socketBuffer {
		return len(p), s.flush()
	}
	return len(p), nil
}

// cork holds writes back until uncork.
func (s *socket) cork() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = true
}

// uncork sends what was held back.
func (s *socket) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	return s.flush()
}

func (s *socket) flush() error {
	if len(s.held) == 0 || s.failed != nil {
		return s.failed
	}
	err := s.write(s.held)
	s.held = s.held[:0]
	return err
}

func (s *socket) write(p []byte) error {
	if s.failed != nil {
		return s.failed
	}
	err := s.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = s.Conn.Write(p)
	}
	if err != nil {
		_ = s.Close() // a frame may be half written
		s.failed = fmt.Errorf("write to broker: %w", err)
	}
	return s.failed
}
