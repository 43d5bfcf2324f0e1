package rabbit_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/devstack"
	"github.com/quadrille-go/quadrille/rabbit"
)

func TestErrorsHoldNoPassword(t *testing.T) {
	t.Parallel()
	shared, err := url.Parse(devstack.Shared(t).AMQPURL)
	must(t, err)
	for name, bad := range map[string]string{
		"wrong password": "amqp://nobody:geheim@" + shared.Host + "/",
		"no server":      "amqp://nobody:geheim@127.0.0.1:1/",
		"no such host":   "amqp://nobody:geheim@host.invalid/",
		"bad escape":     "amqp://nobody:geheim%zz@" + shared.Host + "/",
		"bad port":       "amqp://nobody:geheim@127.0.0.1:port/",
		"bad scheme":     "http://nobody:geheim@127.0.0.1/",
		"with a space":   "amqp://nobody:geheim @127.0.0.1/",
	} {
		_, err := rabbit.Open(t.Context(), bad, "test")
		if err == nil {
			t.Errorf("%s: connected", name)
			continue
		}
		if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the error holds the password: %v", name, err)
		}
	}
}

// A server that accepts but never answers does not hold up the end of a program.
func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := silent.Accept()
		if err == nil {
			_, _ = io.ReadFull(c, make([]byte, len("AMQP0091"))) // it waits for the answer now
			accepted <- c
		}
		cancel()
	}()
	began := time.Now()
	_, err = rabbit.Open(ctx, "amqp://a:b@"+silent.Addr().String()+"/", "test")
	if took := time.Since(began); err == nil || took > 5*time.Second {
		t.Errorf("error %v after %s", err, took)
	}
	_ = (<-accepted).Close()
}

func TestClosedByOperatorEndsSession(t *testing.T) {
	t.Parallel()
	broker, manage := devstack.Vhost(t)
	s := open(t, broker)
	var found []struct{ Name, Vhost string }
	var mine string
	u, _ := url.Parse(broker)
	until(t, "the management API shows the connection", func() bool {
		must(t, devstack.Manage(t.Context(), manage, http.MethodGet, "/api/connections", nil, &found))
		for _, c := range found {
			if "/"+c.Vhost == u.Path {
				mine = c.Name
			}
		}
		return mine != ""
	})
	must(t, devstack.Manage(t.Context(), manage, http.MethodDelete, "/api/connections/"+
		url.PathEscape(mine), nil, nil))
	if err := over(t, s); !errors.Is(err, rabbit.ErrClosed) || rabbit.ServerCode(err) != 320 {
		t.Errorf("the session ended with %v (code %d)", err, rabbit.ServerCode(err))
	}
}

func TestCloseEndsSessionOnce(t *testing.T) {
	t.Parallel()
	broker, _ := devstack.Vhost(t)
	s := open(t, broker)
	if err := s.Err(); err != nil {
		t.Errorf("a session that is open has the error %v", err)
	}
	s.Close()
	s.Close()
	if err := over(t, s); !errors.Is(err, rabbit.ErrClosed) || rabbit.ServerCode(err) != 0 {
		t.Errorf("the session ended with %v", err)
	}
}

func TestSuperviseRestartsAndLogsOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log bytes.Buffer
	runs := 0
	rabbit.Supervise(ctx, zerolog.New(&log), func(context.Context) error {
		if runs++; runs == 3 {
			cancel()
		}
		return errors.New("trouble")
	})
	if runs != 3 {
		t.Errorf("%d runs", runs)
	}
	if lines := strings.Count(log.String(), "trouble"); lines != 1 {
		t.Errorf("%d complaints about the same trouble:\n%s", lines, log.String())
	}
}

// A broker that lives but owes an answer for ever, as one whose queues are stuck does, ends the
// session instead of the program's progress.
func TestBrokerThatOwesAnAnswer(t *testing.T) {
	t.Parallel()
	broker, _ := devstack.Vhost(t)
	url, mute := muted(t, broker)
	s := open(t, url)
	s.SetReplyTimeout(200 * time.Millisecond)
	mute()
	_, err := rabbit.Subscribe(s, "q", 1, 0)
	if !errors.Is(err, rabbit.ErrClosed) ||
		!strings.Contains(err.Error(), "did not answer within 200ms") {
		t.Errorf("error %v", err)
	}
	if err := over(t, s); !errors.Is(err, rabbit.ErrClosed) {
		t.Errorf("the session ended with %v", err)
	}
}

// Also the first answer of all, that a channel is open.
func TestBrokerThatOwesAChannel(t *testing.T) {
	t.Parallel()
	broker, _ := devstack.Vhost(t)
	url, mute := muted(t, broker)
	mute()
	if _, err := rabbit.OpenWithin(t.Context(), url, "test", 200*time.Millisecond); err == nil ||
		!strings.Contains(err.Error(), "did not answer within 200ms") {
		t.Errorf("error %v", err)
	}
}

// muted puts a proxy before the broker that, once told so, lets nothing of a channel through: only
// what is of the connection, its heartbeats among it.
func muted(t *testing.T, broker string) (proxied string, mute func()) {
	t.Helper()
	u, err := url.Parse(broker)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	server, err := net.Dial("tcp", u.Host)
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	u.Host = l.Addr().String()
	var silent atomic.Bool
	go func() {
		client, err := l.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(server, client) }()
		defer func() { _ = client.Close() }()
		head := make([]byte, 7) // a frame's type, channel and size: AMQP 0-9-1, 4.2.3
		for {
			if _, err := io.ReadFull(server, head); err != nil {
				return
			}
			frame := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
			if _, err := io.ReadFull(server, frame); err != nil {
				return
			}
			if channel := binary.BigEndian.Uint16(head[1:]); channel == 0 || !silent.Load() {
				_, _ = client.Write(append(bytes.Clone(head), frame...))
			}
		}
	}()
	return u.String(), func() { silent.Store(true) }
}
