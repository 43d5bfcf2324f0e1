package rabbit_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// fakeConn is a connection that records its writes.
type fakeConn struct {
	net.Conn
	mu       sync.Mutex
	writes   [][]byte
	deadline time.Time
	fail     error
	closed   bool
}

func (w *fakeConn) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, net.ErrClosed
	}
	if w.fail != nil {
		return len(p) / 2, w.fail
	}
	w.writes = append(w.writes, bytes.Clone(p))
	return len(p), nil
}

func (w *fakeConn) SetWriteDeadline(t time.Time) error { w.deadline = t; return nil }
func (w *fakeConn) Close() error                       { w.closed = true; return nil }

func write(t *testing.T, s rabbit.Socket, text string) {
	t.Helper()
	if n, err := s.Write([]byte(text)); err != nil || n != len(text) {
		t.Fatalf("wrote %d: %v", n, err)
	}
}

func TestCorkedWritesAreOne(t *testing.T) {
	t.Parallel()
	w := &fakeConn{}
	s := rabbit.NewSocket(w)
	write(t, s, "a")
	s.Cork()
	write(t, s, "b")
	write(t, s, "c")
	if len(w.writes) != 1 {
		t.Fatalf("written while corked: %q", w.writes)
	}
	must(t, s.Uncork())
	write(t, s, "d")
	must(t, s.Uncork()) // nothing is buffered
	if got := string(bytes.Join(w.writes, []byte("|"))); got != "a|bc|d" {
		t.Errorf("writes %q", got)
	}
}

func TestCorkHoldsBackNoMoreThanItsBuffer(t *testing.T) {
	t.Parallel()
	w := &fakeConn{}
	s := rabbit.NewSocket(w)
	s.Cork()
	chunk := bytes.Repeat([]byte("x"), 10_000)
	for range 100 {
		write(t, s, string(chunk))
	}
	if len(w.writes) < 10 {
		t.Errorf("a megabyte in %d writes while corked", len(w.writes))
	}
	must(t, s.Uncork())
	if got := len(bytes.Join(w.writes, nil)); got != 1_000_000 {
		t.Errorf("%d bytes of 1000000", got)
	}
}

// A write that hangs ends with an error, and no write follows the incomplete frame.
func TestHangingWriteIsCut(t *testing.T) {
	t.Parallel()
	w := &fakeConn{fail: os.ErrDeadlineExceeded}
	s := rabbit.NewSocket(w)
	before := time.Now()
	if _, err := s.Write([]byte("frame")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("error %v", err)
	}
	if d := w.deadline.Sub(before); d <= 0 || d > rabbit.WriteTimeout+time.Second {
		t.Errorf("the write may hang for %s", d)
	}
	w.fail = nil
	if _, err := s.Write([]byte("next")); err == nil || len(w.writes) > 0 {
		t.Errorf("%q was written after an incomplete frame", w.writes)
	}
	s.Cork()
	if _, err := s.Write([]byte("next")); err != nil {
		t.Errorf("corked: %v", err)
	}
	if s.Uncork() == nil {
		t.Error("Uncork lost a write without an error")
	}
}

func TestConcurrentCorksLoseNothing(t *testing.T) {
	t.Parallel()
	w := &fakeConn{}
	s := rabbit.NewSocket(w)
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 1000 {
				s.Cork()
				_, _ = s.Write([]byte("xy"))
				_, _ = s.Write([]byte("z"))
				_ = s.Uncork()
			}
		})
	}
	writers.Wait()
	if got := len(bytes.Join(w.writes, nil)); got != 8*3000 {
		t.Errorf("%d bytes, want %d", got, 8*3000)
	}
}
