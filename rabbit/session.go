package rabbit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
)

// The bounds of a session.
const (
	connectTimeout = 10 * time.Second
	heartbeat      = 10 * time.Second // a silent peer is noticed after three of them
	reconnectFirst = 100 * time.Millisecond
	reconnectMax   = 15 * time.Second
	// a session that lived this long was healthy: start the backoff anew
	sessionSettled = 10 * time.Second
	closePatience  = 2 * time.Second
	// a declaration or subscription; a broker that is alive may still owe the answer for ever
	replyTimeout   = 30 * time.Second
	complainAtMost = 30 * time.Second // one log line in this time about the same trouble
	maxShortString = 255              // AMQP 0-9-1, 4.2.5.3
)

// ErrClosed says that the session is over; what was in flight in it is of unknown outcome.
var ErrClosed = errors.New("broker session is closed")

// Session is one connection with one channel. When either breaks, the session is over: it is never
// repaired, a new one takes its place.
type Session struct {
	conn   *amqp.Connection
	ch     *amqp.Channel
	socket *socket
	done   chan struct{}
	once   sync.Once
	err    error         // why it ended; read after done is closed
	reply  time.Duration // replyTimeout, or what a test makes of it
}

// CheckURL refuses what is no address of a broker. The error does not repeat it, for it holds
// a password.
func CheckURL(rawURL string) error {
	_, err := parseURL(rawURL)
	return err
}

func parseURL(rawURL string) (amqp.URI, error) {
	uri, err := amqp.ParseURI(rawURL)
	if err != nil {
		return amqp.URI{}, errors.New("broker URL: want amqp://user:password@host:port/vhost")
	}
	return uri, nil
}

// Open connects. The name is shown in the broker's management pages, such as "orders/publish".
// Errors never hold the password.
func Open(ctx context.Context, rawURL, name string) (*Session, error) {
	return open(ctx, rawURL, name, replyTimeout)
}

func open(ctx context.Context, rawURL, name string, reply time.Duration) (*Session, error) {
	uri, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	s := &Session{done: make(chan struct{}), reply: reply}
	uncut := func() bool { return true }
	config := amqp.Config{
		Heartbeat:  heartbeat,
		Properties: amqp.NewConnectionProperties(),
		Dial: func(network, addr string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: connectTimeout}
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			s.socket = newSocket(c)
			// A server that accepts but does not answer must not hold up the end of the program.
			uncut = context.AfterFunc(ctx, func() { _ = c.Close() })
			// for the handshake; the driver clears it
			return s.socket, c.SetDeadline(time.Now().Add(connectTimeout))
		},
	}
	config.Properties.SetClientConnectionName(name)
	defer func() { uncut() }()
	if s.conn, err = amqp.DialConfig(rawURL, config); err != nil {
		return nil, fmt.Errorf("connect to broker %s:%d as %s: %w", uri.Host, uri.Port, uri.Username, err)
	}
	// The listeners are registered before anything can fail, so that no reason is lost.
	connClosed := s.conn.NotifyClose(make(chan *amqp.Error, 1))
	if err := s.call(func() (err error) { s.ch, err = s.conn.Channel(); return err }); err != nil {
		s.end(err)
		return nil, fmt.Errorf("open channel: %w", err)
	}
	chClosed := s.ch.NotifyClose(make(chan *amqp.Error, 1))
	go s.watch(connClosed, chClosed)
	return s, nil
}

// watch ends the session at the first word of its connection or its channel. It ends itself then.
func (s *Session) watch(connClosed, chClosed <-chan *amqp.Error) {
	var reason *amqp.Error
	select {
	case reason = <-connClosed:
	case reason = <-chClosed:
	case <-s.done:
		return
	}
	if reason == nil {
		s.end(ErrClosed)
		return
	}
	s.end(fmt.Errorf("%w: %w", ErrClosed, reason))
}

// end closes the session for the given reason; the first reason stays.
func (s *Session) end(reason error) {
	s.once.Do(func() {
		s.err = reason
		close(s.done)
		s.socket.frames.gate.limit(0, nil)
		// The close handshake is bounded; a connection that does not answer is cut.
		_ = s.conn.CloseDeadline(time.Now().Add(closePatience))
		_ = s.socket.Close()
	})
}

// call asks the broker for something and waits for the answer, but not for ever: the driver would,
// and the heartbeats of a broker whose queues are stuck go on. A session without an answer is over.
func (s *Session) call(ask func() error) error {
	timer := time.AfterFunc(s.reply, func() {
		s.end(fmt.Errorf("%w: the broker did not answer within %s", ErrClosed, s.reply))
	})
	defer timer.Stop()
	if err := ask(); err != nil {
		if reason := s.Err(); reason != nil {
			return reason
		}
		return err
	}
	return nil
}

// Close ends the session. It is safe to call more than once.
func (s *Session) Close() { s.end(ErrClosed) }

// Done is closed when the session is over.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session is over, and nil while it is not.
func (s *Session) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// ServerCode returns the AMQP reply code with which the broker closed the session, 0 when it did
// not say one.
func ServerCode(err error) int {
	var reason *amqp.Error
	if errors.As(err, &reason) && reason.Server {
		return reason.Code
	}
	return 0
}

// Supervise runs one session after another until ctx is done: whenever run returns, it is run again
// after a jittered, growing pause. It logs why, but not more often than a person can read.
func Supervise(ctx context.Context, log zerolog.Logger, run func(ctx context.Context) error) {
	pause := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(reconnectFirst), backoff.WithMaxInterval(reconnectMax),
		backoff.WithMaxElapsedTime(0))
	var complained time.Time
	for ctx.Err() == nil {
		began := time.Now()
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > sessionSettled {
			pause.Reset()
		}
		if time.Since(complained) > complainAtMost || time.Since(began) > sessionSettled {
			log.Warn().Err(err).Msg("broker session ended, connecting again")
			complained = time.Now()
		}
		timer := time.NewTimer(pause.NextBackOff())
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}
