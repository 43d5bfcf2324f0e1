package web_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

type joined struct {
	Name string `json:"name"`
}

func (joined) EventType() string { return "user.joined" }
func (j joined) Subject() string { return j.Name }

// listener is a service that consumes its own event.
func listener(broker string, handle func() error) webtest.New {
	return func(database string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
		handler := consumer.Handle(func(context.Context, *sqlx.Tx, events.Of[joined]) error {
			return handle()
		})
		service, err := quadrille.New(quadrille.Config{
			Name: "listener", Database: database, AMQP: broker, Log: log,
			Bounds:    consumer.Bounds{HandlerTimeout: time.Second},
			Publishes: []events.Payload{joined{}}, Handlers: []consumer.Handler{handler},
		})
		return webtest.Must(service, http.NotFoundHandler(), err)
	}
}

// running runs a service until the test ends.
func running(t *testing.T, s *quadrille.Service) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// answers waits until a request for a path is answered with a status and a text.
func answers(t *testing.T, s *webtest.Service, path string, status int, text string) {
	t.Helper()
	quadrilletest.WaitFor(t, path+" to answer "+text, func() (bool, string) {
		a := s.Call("GET", path, "")
		return a.Status == status && strings.Contains(a.Body, text), a.Body
	})
}

// A service that cannot consume fails /readyz?full=1, and a metric shows the cause. /readyz stays
// 200, because the API works.
func TestServiceThatCannotConsumeIsNotReady(t *testing.T) {
	t.Parallel()
	t.Run("a handler hangs", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		released := sync.OnceFunc(func() { close(release) })
		defer released()
		broker, _ := servertest.Vhost(t)
		kind := listener(broker, func() error { <-release; return nil })
		s := webtest.On(t, webtest.Database(t, kind), kind, "")
		if a := s.Call("GET", "/readyz?full=1", ""); a.Status != http.StatusServiceUnavailable {
			t.Errorf("before it runs: %+v", a)
		}
		running(t, s.Kit)
		answers(t, s, "/readyz?full=1", http.StatusOK, `"consumer":"ok"`)
		err := s.Kit.Tx(t.Context(), func(_ context.Context, tx *sqlx.Tx) error {
			return s.Kit.Publish(t.Context(), tx, joined{"ada"})
		})
		if err != nil {
			t.Fatal(err)
		}
		answers(t, s, "/readyz?full=1", http.StatusServiceUnavailable, "does not consume")
		answers(t, s, "/readyz", http.StatusOK, "does not consume")
		answers(t, s, "/metrics", http.StatusOK, "\nquadrille_handlers_hanging 1\n")
		released()
		answers(t, s, "/readyz?full=1", http.StatusOK, `"consumer":"ok"`)
		answers(t, s, "/metrics", http.StatusOK, "\nquadrille_handlers_hanging 0\n")
	})
	t.Run("no broker", func(t *testing.T) {
		t.Parallel()
		kind := listener(webtest.NoBroker, func() error { return nil })
		s := webtest.On(t, webtest.Database(t, kind), kind, "")
		running(t, s.Kit)
		answers(t, s, "/metrics", http.StatusOK, `quadrille_consumer_session_ends_total{cause="network"}`)
		answers(t, s, "/readyz?full=1", http.StatusServiceUnavailable, "does not consume")
		answers(t, s, "/readyz", http.StatusOK, "does not consume")
	})
}
