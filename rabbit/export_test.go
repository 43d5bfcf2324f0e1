package rabbit

import (
	"net"
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

// SetReplyTimeout makes a session less patient.
func (s *Session) SetReplyTimeout(d time.Duration) { s.reply = d }
