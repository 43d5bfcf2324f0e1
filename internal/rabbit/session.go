package rabbit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
)

// The bounds of a session.
const (
	connectTimeout = 10 * time.Second
	heartbeat      = 10 * time.Second // the driver detects a silent peer after three of them
	reconnectFirst = 100 * time.Millisecond
	reconnectMax   = 15 * time.Second
	// A session that lasted this long was healthy: the backoff starts from the beginning.
	healthyAfter = 10 * time.Second
	closeTimeout = 2 * time.Second
	// replyTimeout bounds a call such as a declaration. A broker whose queues are stuck may never
	// answer one, although its heartbeats go on.
	replyTimeout   = 30 * time.Second
	logInterval    = 30 * time.Second // between two log lines about failing sessions
	maxShortString = 255              // AMQP 0-9-1, 4.2.5.3
)

// ErrClosed means that the session is over. The outcome of everything in flight is unknown.
var ErrClosed = errors.New("broker session is closed")

// Session is one connection with one channel. When either breaks, the session is over. It is never
// repaired; a new session replaces it.
type Session struct {
	conn         *amqp.Connection
	ch           *amqp.Channel
	socket       *socket
	done         chan struct{}
	once         sync.Once
	err          error         // why it ended; read it only after done is closed
	replyTimeout time.Duration // replyTimeout, or that of a test
}

// CheckURL returns an error unless rawURL is the address of a broker, or several addresses with
// commas between them. The error does not repeat the address, because it contains a password.
func CheckURL(rawURL string) error {
	for _, address := range addresses(rawURL) {
		if _, err := parseURL(address); err != nil {
			return err
		}
	}
	return nil
}

// addresses splits the addresses of the nodes of one broker. A comma within an address is
// percent-encoded.
func addresses(rawURL string) []string { return strings.Split(rawURL, ",") }

var errURL = errors.New("broker URL: want amqp://user:password@host:port/vhost")

func parseURL(rawURL string) (amqp.URI, error) {
	if rawURL == "" {
		return amqp.URI{}, fmt.Errorf("it is empty: %w", errURL)
	}
	uri, err := amqp.ParseURI(rawURL)
	if err != nil {
		return amqp.URI{}, errURL
	}
	return uri, nil
}

// Open connects to a broker: to the first of its addresses that answers. The management pages show
// the name, such as "orders/publish". Errors never contain the password.
func Open(ctx context.Context, rawURL, name string) (*Session, error) {
	var errs []error
	for _, address := range addresses(rawURL) {
		session, err := open(ctx, address, name, replyTimeout)
		if err == nil {
			return session, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func open(ctx context.Context, rawURL, name string, timeout time.Duration) (*Session, error) {
	uri, err := parseURL(rawURL)
	if err == nil {
		rawURL, err = withPassword(rawURL)
	}
	if err != nil {
		return nil, err
	}
	s := &Session{done: make(chan struct{}), replyTimeout: timeout}
	stopClose := func() bool { return true }
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
			// A server that accepts and does not answer must not delay the end of the program.
			stopClose = context.AfterFunc(ctx, func() { _ = c.Close() })
			// The deadline bounds the handshake; the driver clears it afterwards.
			return s.socket, c.SetDeadline(time.Now().Add(connectTimeout))
		},
	}
	config.Properties.SetClientConnectionName(name)
	defer func() { stopClose() }()
	if s.conn, err = amqp.DialConfig(rawURL, config); err != nil {
		return nil, fmt.Errorf("connect to broker %s:%d as %s: %w", uri.Host, uri.Port, uri.Username, err)
	}
	// The listener is registered before a call can fail, so that the reason of a close is not lost.
	connClosed := s.conn.NotifyClose(make(chan *amqp.Error, 1))
	if err := s.call(func() (err error) { s.ch, err = s.conn.Channel(); return err }); err != nil {
		s.end(err)
		return nil, fmt.Errorf("open channel: %w", err)
	}
	chClosed := s.ch.NotifyClose(make(chan *amqp.Error, 1))
	go s.watch(connClosed, chClosed)
	return s, nil
}

// watch ends the session when its connection or its channel is closed, and returns then.
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

// end closes the session. Only the reason of the first call counts.
func (s *Session) end(reason error) {
	s.once.Do(func() {
		s.err = reason
		close(s.done)
		s.socket.frames.gate.setBound(0, nil)
		// The close handshake is bounded, since the broker may not answer. The driver moves its own
		// deadline on with every frame, such as a heartbeat, of a broker that does not answer.
		hanging := time.AfterFunc(closeTimeout, func() { _ = s.socket.Close() })
		defer hanging.Stop()
		_ = s.conn.CloseDeadline(time.Now().Add(closeTimeout))
		_ = s.socket.Close()
	})
}

// call runs a request to the broker and ends the session if there is no answer within replyTimeout.
// The driver itself would wait forever for a broker whose queues are stuck and whose heartbeats go
// on.
func (s *Session) call(request func() error) error {
	timer := time.AfterFunc(s.replyTimeout, func() {
		s.end(fmt.Errorf("%w: the broker did not answer within %s", ErrClosed, s.replyTimeout))
	})
	defer timer.Stop()
	if err := request(); err != nil {
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

// Err returns why the session is over, or nil while it is not.
func (s *Session) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// ServerCode returns the AMQP reply code with which the broker closed the session, or 0 if there is
// none.
func ServerCode(err error) int {
	var reason *amqp.Error
	if errors.As(err, &reason) && reason.Server {
		return reason.Code
	}
	return 0
}

// IsConflict reports whether an object of the broker exists with other arguments.
func IsConflict(err error) bool { return ServerCode(err) == amqp.PreconditionFailed }

// ErrIdle is the error of a run whose session was idle, and which should begin another one at once.
var ErrIdle = errors.New("the session was idle")

// Supervise runs one session after another until ctx is done. When run returns ErrIdle, it calls
// run again at once. When run returns otherwise, Supervise logs its error, waits for a growing
// pause with jitter, and calls run again. It limits how often it logs, so that a broker that is
// down does not flood the log.
func Supervise(ctx context.Context, log zerolog.Logger, run func(ctx context.Context) error) {
	pause := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(reconnectFirst), backoff.WithMaxInterval(reconnectMax),
		backoff.WithMaxElapsedTime(0))
	var logged time.Time
	for ctx.Err() == nil {
		began := time.Now()
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, ErrIdle) {
			pause.Reset()
			continue
		}
		if time.Since(began) > healthyAfter || errors.Is(err, errRefusedRoute) {
			pause.Reset()
		}
		if time.Since(logged) > logInterval || time.Since(began) > healthyAfter {
			log.Warn().Err(err).Msg("broker session ended, reconnecting")
			logged = time.Now()
		}
		timer := time.NewTimer(pause.NextBackOff())
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}
