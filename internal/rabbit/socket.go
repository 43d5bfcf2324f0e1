package rabbit

import (
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	socketBuffer = 64 << 10
	// writeTimeout bounds a write. A broker with a memory or disk alarm stops reading, and the
	// driver's own calls cannot be interrupted.
	writeTimeout = 10 * time.Second
	// readTimeout is how long the driver waits for a heartbeat from the broker.
	readTimeout = 3 * heartbeat
)

// socket is a connection that buffers writes between cork and uncork, so that a batch of
// publishings or acknowledgements is one system call. It reads through frames.
type socket struct {
	net.Conn
	frames *frames

	mu       sync.Mutex
	corked   bool
	buffered []byte
	failed   error // the error of the first write that failed; no write may follow it
}

func newSocket(c net.Conn) *socket {
	s := &socket{Conn: c, frames: newFrames(c)}
	// The driver's deadline for the next heartbeat has continued to run while the gate was closed.
	s.frames.onWait = func() { _ = c.SetReadDeadline(time.Now().Add(readTimeout)) }
	return s
}

func (s *socket) Read(p []byte) (int, error) { return s.frames.Read(p) }

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.corked {
		return len(p), s.write(p)
	}
	s.buffered = append(s.buffered, p...)
	if len(s.buffered) >= socketBuffer {
		return len(p), s.flush()
	}
	return len(p), nil
}

// cork buffers writes until uncork.
func (s *socket) cork() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = true
}

// uncork sends the buffered writes.
func (s *socket) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	return s.flush()
}

func (s *socket) flush() error {
	if len(s.buffered) == 0 || s.failed != nil {
		return s.failed
	}
	err := s.write(s.buffered)
	s.buffered = s.buffered[:0]
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
		_ = s.Close() // a frame may be incomplete
		s.failed = fmt.Errorf("write to broker: %w", err)
	}
	return s.failed
}
