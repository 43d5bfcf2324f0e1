package rabbit_test

import (
	"bytes"
	"context"
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

	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

func TestErrorsHoldNoPassword(t *testing.T) {
	t.Parallel()
	shared, err := url.Parse(servertest.Shared(t).AMQPURL)
	must(t, err)
	for name, bad := range map[string]string{
		"wrong password": "amqp://nobody:hunter2@" + shared.Host + "/",
		"no server":      "amqp://nobody:hunter2@127.0.0.1:1/",
		"no such host":   "amqp://nobody:hunter2@host.invalid/",
		"bad escape":     "amqp://nobody:hunter2%zz@" + shared.Host + "/",
		"bad port":       "amqp://nobody:hunter2@127.0.0.1:port/",
		"bad scheme":     "http://nobody:hunter2@127.0.0.1/",
		"with a space":   "amqp://nobody:hunter2 @127.0.0.1/",
	} {
		_, err := rabbit.Open(t.Context(), bad, "test")
		if err == nil {
			t.Errorf("%s: connected", name)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error holds the password: %v", name, err)
		}
	}
}

// Of several addresses the first that answers is used, and a fault of any is known before.
func TestFirstAddressThatAnswersIsUsed(t *testing.T) {
	t.Parallel()
	url, _ := servertest.Vhost(t)
	const away = "amqp://u:hush@127.0.0.1:1/"
	for _, list := range []string{away + "," + url, url + "," + away, away + "," + away + "," + url} {
		s, err := rabbit.Open(t.Context(), list, t.Name())
		if err != nil {
			t.Errorf("%d addresses: %v", strings.Count(list, ",")+1, err)
			continue
		}
		s.Close()
	}
	if _, err := rabbit.Open(t.Context(), away+","+away, t.Name()); err == nil ||
		strings.Count(err.Error(), "connect to broker 127.0.0.1:1") != 2 ||
		strings.Contains(err.Error(), "hush") {
		t.Errorf("no address answers: %v", err)
	}
	if err := rabbit.CheckURL(url + ",http://u:hush@h/"); err == nil {
		t.Error("a second address that is none was accepted")
	}
}

// Open returns when its context ends, even if the server accepts the connection and never answers.
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
			_, _ = io.ReadFull(c, make([]byte, len("AMQP0091"))) // the client waits for the answer now
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
	broker, manage := servertest.Vhost(t)
	s := open(t, broker)
	var found []struct{ Name, Vhost string }
	var connection string
	u, _ := url.Parse(broker)
	waitFor(t, "the management API shows the connection", func() bool {
		must(t, localrun.Manage(t.Context(), manage, http.MethodGet, "/api/connections", nil, &found))
		for _, c := range found {
			if "/"+c.Vhost == u.Path {
				connection = c.Name
			}
		}
		return connection != ""
	})
	must(t, localrun.Manage(t.Context(), manage, http.MethodDelete, "/api/connections/"+
		url.PathEscape(connection), nil, nil))
	if err := waitClosed(t, s); !errors.Is(err, rabbit.ErrClosed) || rabbit.ServerCode(err) != 320 {
		t.Errorf("the session ended with %v (code %d)", err, rabbit.ServerCode(err))
	}
}

func TestCloseEndsSessionOnce(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	s := open(t, broker)
	if err := s.Err(); err != nil {
		t.Errorf("a session that is open has the error %v", err)
	}
	s.Close()
	s.Close()
	if err := waitClosed(t, s); !errors.Is(err, rabbit.ErrClosed) || rabbit.ServerCode(err) != 0 {
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
		return errors.New("no broker")
	})
	if runs != 3 {
		t.Errorf("%d runs", runs)
	}
	if lines := strings.Count(log.String(), "no broker"); lines != 1 {
		t.Errorf("%d log lines about the same error, want 1:\n%s", lines, log.String())
	}
}

// If a broker sends heartbeats but never answers a call, as one whose queues are stuck does, the
// session ends and the program can continue.
func TestCallTimesOutWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	url, silence := silentProxy(t, broker)
	s := open(t, url)
	s.SetReplyTimeout(200 * time.Millisecond)
	silence()
	_, err := rabbit.Subscribe(s, "q", "", 1, 0)
	if !errors.Is(err, rabbit.ErrClosed) ||
		!strings.Contains(err.Error(), "did not answer within 200ms") {
		t.Errorf("error %v", err)
	}
	if err := waitClosed(t, s); !errors.Is(err, rabbit.ErrClosed) {
		t.Errorf("the session ended with %v", err)
	}
}

// The same applies to the first call of a session, which opens the channel.
func TestOpenTimesOutWithoutAChannel(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	url, silence := silentProxy(t, broker)
	silence()
	if _, err := rabbit.OpenWithin(t.Context(), url, "test", 200*time.Millisecond); err == nil ||
		!strings.Contains(err.Error(), "did not answer within 200ms") {
		t.Errorf("error %v", err)
	}
}

// silentProxy starts a proxy that, after silence, drops all frames of the broker for a channel, and
// forwards only those of the connection, such as heartbeats.
func silentProxy(t *testing.T, broker string) (proxied string, silence func()) {
	t.Helper()
	var silent atomic.Bool
	return framesProxy(t, broker, func(channel uint16, _ []byte) bool {
		return channel != 0 && silent.Load()
	}, nil), func() { silent.Store(true) }
}
