//go:build faults

package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/resilience"
	"github.com/quadrille-go/quadrille/topology"
)

// The bounds of an alert. Prometheus adds up to 15 seconds until it scrapes and 15 until it
// evaluates, so that an alert within raisedWithin here is raised within 60 seconds there.
const (
	raisedWithin  = 30 * time.Second
	clearedWithin = 2 * time.Minute
)

type joined struct{ ID string }

func (joined) EventType() string { return "user.joined" }
func (j joined) Subject() string { return j.ID }

type opened struct{ ID string }

func (opened) EventType() string { return "shop.opened" }
func (o opened) Subject() string { return o.ID }

type orphan struct{ ID string }

func (orphan) EventType() string { return "shop.orphaned" }
func (o orphan) Subject() string { return o.ID }

// market has a service that is tested, shop, and one that is only a name.
func market() topology.Topology {
	return topology.Topology{Name: "market", Services: []topology.Service{
		{Name: "members", Commands: []topology.Command{{Does: "join",
			Publishes: []string{"user.joined"}}},
			Reacts: []topology.Reaction{{Handles: "shop.opened", Does: "visit"}}},
		{Name: "shop", Commands: []topology.Command{{Does: "open",
			Publishes: []string{"shop.opened", "shop.orphaned"}}},
			Reacts: []topology.Reaction{{Handles: "user.joined", Does: "greet"}}},
	}}
}

// shop is a service on servers that a test may take away.
type shop struct {
	*testing.T
	service  *quadrille.Service
	url      string
	db       *sqlx.DB // not by way of the proxy
	rabbit   *quadrilletest.Proxy
	postgres *quadrilletest.Proxy
	broker   string // not by way of the proxy
	breaker  *resilience.Breaker
	handle   atomic.Pointer[func(context.Context) error]
	failing  atomic.Bool // its API answers 500
	servers  interface {
		RabbitMQCtl(args ...string) error
	}
}

// ctl is the command line of a private broker.
type ctl func(args ...string) error

func (c ctl) RabbitMQCtl(args ...string) error { return c(args...) }

// newShop runs a shop. Its handlers have a time-out.
func newShop(t *testing.T, timeout time.Duration, private bool) *shop {
	t.Helper()
	s := &shop{T: t, breaker: &resilience.Breaker{Name: "peer", Open: time.Second}}
	servers := quadrilletest.Shared(t)
	database := servers.Database(t)
	s.broker = servers.VirtualHost(t)
	if private {
		own := servertest.Private(t)
		s.broker = own.AMQPURL
		s.servers = ctl(func(args ...string) error {
			return own.RabbitMQCtl(context.Background(), args...)
		})
	}
	s.rabbit, s.postgres = quadrilletest.NewProxy(t, s.broker), quadrilletest.NewProxy(t, database)
	var err error
	if s.db, err = postgres.Open(database); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.db.Close() })
	s.does(func(context.Context) error { return nil })
	s.apply()
	s.service, err = quadrille.New(quadrille.Config{Name: "shop", Topology: market(),
		Database: s.postgres.URL, AMQP: s.rabbit.URL, Log: zerolog.Nop(),
		Publishes: []events.Payload{opened{}, orphan{}},
		Mandatory: func(string) bool { return true },
		Bounds:    consumer.Bounds{HandlerTimeout: timeout},
		Handlers: []consumer.Handler{consumer.Handle(
			func(ctx context.Context, _ *sqlx.Tx, _ events.Of[joined]) error {
				return (*s.handle.Load())(ctx)
			})},
		Components: []quadrille.Component{resilience.Breakers{s.breaker}}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /thing", func(w http.ResponseWriter, _ *http.Request) {
		if s.failing.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = fmt.Fprint(w, "a thing")
	})
	s.url = serve(t, s.service, mux)
	quadrilletest.WaitFor(t, "the shop to work", func() (bool, string) {
		text := scrape(t, s.url)
		return strings.Contains(text, "\nquadrille_consuming 1") &&
			strings.Contains(text, "\nquadrille_outbox_leading 1"), text
	})
	return s
}

func (s *shop) does(handle func(context.Context) error) { s.handle.Store(&handle) }

func (s *shop) apply() {
	s.Helper()
	if err := quadrille.ApplyTopology(s.Context(), s.broker, market()); err != nil {
		s.Fatal(err)
	}
}

// join has n events delivered to the shop.
func (s *shop) join(n int) {
	s.Helper()
	var list []events.Payload
	for range n {
		list = append(list, joined{events.NewID()})
	}
	quadrilletest.Publish(s.T, s.broker, "members", list...)
}

// publish puts an event into the outbox of the shop.
func (s *shop) publish(p events.Payload) {
	s.Helper()
	if err := s.service.Tx(s.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
		return s.service.Publish(ctx, tx, p)
	}); err != nil {
		s.Fatal(err)
	}
}

func (s *shop) exec(query string) {
	s.Helper()
	if _, err := s.db.ExecContext(s.Context(), query); err != nil {
		s.Fatal(err)
	}
}

// amqp runs f on a channel of an administrator.
func (s *shop) amqp(f func(*amqp.Channel) error) {
	s.Helper()
	c, err := amqp.Dial(s.broker)
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ch, err := c.Channel()
	if err == nil {
		err = f(ch)
	}
	if err != nil {
		s.Fatal(err)
	}
}

func (s *shop) ctl(args ...string) {
	s.Helper()
	if err := s.servers.RabbitMQCtl(args...); err != nil {
		s.Fatal(err)
	}
}

// requests makes requests to the API, some each second, until the test ends.
func (s *shop) requests() {
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/thing", nil)
			if err == nil {
				var a *http.Response
				if a, err = http.DefaultClient.Do(r); err == nil {
					_ = a.Body.Close()
				}
			}
			if err != nil && ctx.Err() == nil {
				s.Error(err)
			}
			<-tick.C
		}
	})
	s.Cleanup(func() { stop(); running.Wait() })
}

// fault causes a fault and returns what repairs it.
type fault struct {
	alert   string
	timeout time.Duration // of handlers; 0: the default
	private bool          // it needs a broker of its own
	cause   func(s *shop) (repair func())
}

// Each fault raises its alert soon, and the alert clears when the fault is repaired.
func TestFaultsRaiseTheirAlerts(t *testing.T) {
	w, stop := newWatcher(t)
	defer stop()                         // before the context of the test ends
	t.Run("faults", func(t *testing.T) { // waits for all of them
		for _, f := range faults() {
			t.Run(f.alert, func(t *testing.T) {
				t.Parallel()
				s := newShop(t, f.timeout, f.private)
				w.add(f.alert, s.url)
				t.Cleanup(func() { w.remove(f.alert) })
				raised := func() (bool, string) {
					about := w.raised(f.alert, f.alert)
					return len(about) > 0, strings.Join(about, "\n")
				}
				quadrilletest.WaitFor(t, "a first scrape", func() (bool, string) {
					w.mu.Lock()
					defer w.mu.Unlock()
					return len(w.targets[f.alert].seen) > 0, ""
				})
				if is, about := raised(); is {
					t.Fatalf("it is raised before the fault: %s", about)
				}
				began := time.Now()
				repair := f.cause(s)
				quadrilletest.WaitAtMost(t, raisedWithin, f.alert+" to be raised", func() (bool, string) {
					is, _ := raised()
					return is, interesting(scrape(t, s.url))
				})
				t.Logf("raised after %s", time.Since(began).Round(time.Second))
				began = time.Now()
				repair()
				quadrilletest.WaitAtMost(t, clearedWithin, f.alert+" to clear", func() (bool, string) {
					is, about := raised()
					return !is, about + "\n" + interesting(scrape(t, s.url))
				})
				t.Logf("cleared after %s", time.Since(began).Round(time.Second))
			})
		}
	})
}

// interesting returns the gauges of a scrape that are not 0.
func interesting(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "quadrille_") && !strings.HasSuffix(line, " 0") &&
			!strings.Contains(line, "_bucket{") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

var errNo = errors.New("no")
