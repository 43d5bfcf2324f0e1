// Package env runs the four services in a test, on the servers that the tests share. Each service
// has its own database and its own broker user, with the permissions of the topology.
package env

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
	"github.com/quadrille-go/quadrille/internal/fulfilment/simulator"
	"github.com/quadrille-go/quadrille/internal/outside"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

// Env is the four services, their servers and the simulated outside world.
type Env struct {
	t           testing.TB
	Admin       string // the URL of the broker for an operator
	Services    map[string]*quadrille.Service
	Databases   map[string]string
	Outside     *simulator.Simulator // the payment provider and the carrier
	Peers       map[string]*outside.Peer
	Proxies     map[string]Proxies              // of each service, with ThroughProxies
	PeerProxies map[string]*quadrilletest.Proxy // to the provider and the carrier, with ThroughProxies
	api         map[string]http.Handler
	deadline    time.Duration
	configure   func(service string, c *quadrille.Config)
}

// Proxies are the proxies between one service and its servers.
type Proxies struct{ Database, Broker *quadrilletest.Proxy }

// breakerOpen is how long an open breaker stays open in the tests.
const breakerOpen = 500 * time.Millisecond

// Start runs the four services until the test ends. When it returns, all are connected.
func Start(t testing.TB) *Env {
	t.Helper()
	d := Prepare(t)
	d.Run()
	return d
}

// Prepare creates the four services. Their APIs work, but they neither publish nor consume before
// Run.
func Prepare(t testing.TB) *Env { t.Helper(); return prepare(t, fulfilment.OrderDeadline, false) }

// Configured is Prepare with changes to the configuration of each service.
func Configured(t testing.TB, configure func(service string, c *quadrille.Config)) *Env {
	t.Helper()
	return prepareWith(t, &Env{deadline: fulfilment.OrderDeadline, configure: configure}, false)
}

// WithoutPeers is Prepare without a payment provider and a carrier: cards are declined, and
// shipping decides by itself.
func WithoutPeers(t testing.TB) *Env {
	t.Helper()
	d := prepare(t, fulfilment.OrderDeadline, false)
	for name, s := range d.Services {
		if name == "payments" || name == "shipping" {
			d.Peers = map[string]*outside.Peer{}
			d.Services[name], d.api[name] = d.build(name, s.Config().Database, s.Config().AMQP)
		}
	}
	return d
}

// ThroughProxies is Prepare with proxies between the services and their servers, and another
// deadline for orders.
func ThroughProxies(t testing.TB, deadline time.Duration) *Env {
	t.Helper()
	return prepare(t, deadline, true)
}

func prepare(t testing.TB, deadline time.Duration, proxied bool) *Env {
	t.Helper()
	return prepareWith(t, &Env{deadline: deadline}, proxied)
}

func prepareWith(t testing.TB, d *Env, proxied bool) *Env {
	t.Helper()
	admin, management := servertest.Vhost(t)
	if err := rabbit.Apply(context.Background(), admin, fulfilment.Topology()); err != nil {
		t.Fatal(err)
	}
	d.t, d.Admin, d.Outside = t, admin, simulator.New()
	d.Services, d.Databases = map[string]*quadrille.Service{}, map[string]string{}
	d.api, d.Proxies = map[string]http.Handler{}, map[string]Proxies{}
	d.PeerProxies = map[string]*quadrilletest.Proxy{}
	simulators := httptest.NewServer(d.Outside.Handler())
	t.Cleanup(simulators.Close)
	d.Peers = map[string]*outside.Peer{}
	for _, name := range []string{"provider", "carrier"} {
		address := simulators.URL
		if proxied {
			d.PeerProxies[name], address = newProxy(t, address)
		}
		d.Peers[name] = outside.New(name, address, breakerOpen, zerolog.Nop())
		t.Cleanup(d.Peers[name].Close)
	}
	for _, s := range fulfilment.Topology().Services {
		p := topology.PermissionOf(s.Name)
		d.Databases[s.Name] = EmptyDatabase(t)
		database, amqp := d.Databases[s.Name], servertest.User(t, admin, management, s.Name, p.Configure,
			p.Write, p.Read)
		if proxied {
			var proxies Proxies
			proxies.Database, database = newProxy(t, database)
			proxies.Broker, amqp = newProxy(t, amqp)
			d.Proxies[s.Name] = proxies
		}
		d.Services[s.Name], d.api[s.Name] = d.build(s.Name, database, amqp)
	}
	return d
}

// Run runs the services until the test ends. When it returns, all are connected.
func (d *Env) Run() { d.t.Helper(); d.RunWithout("") }

// RunWithout is Run without one of the services.
func (d *Env) RunWithout(absent string) {
	d.t.Helper()
	for name, service := range d.Services {
		if name != absent {
			quadrilletest.Run(d.t, service)
		}
	}
	for name, service := range d.Services {
		if name == absent {
			continue
		}
		Await(d.t, name+" to be connected", func() (string, bool) {
			return "not connected", service.Connected()
		})
	}
}

func (d *Env) build(name, database, amqp string) (*quadrille.Service, http.Handler) {
	c := quadrille.Config{Database: database, AMQP: amqp, Log: zerolog.Nop()}
	if d.configure != nil {
		d.configure(name, &c)
	}
	switch name {
	case "orders":
		return webtest.Must(orders.New(c, d.deadline))
	case "payments":
		return webtest.Must(payments.New(c, d.Peers["provider"]))
	case "inventory":
		return webtest.Must(inventory.New(c))
	}
	return webtest.Must(shipping.New(c, d.Peers["carrier"], shipping.Countries))
}

// API returns the whole HTTP handler of a service, without tokens.
func (d *Env) API(name string) http.Handler {
	d.t.Helper()
	tokens, err := web.LoadTokens("")
	if err != nil {
		d.t.Fatal(err)
	}
	return web.Mux(d.Services[name], tokens, d.api[name], web.Concurrency)
}

// EmptyDatabase returns the URL of a database without tables, for a service that migrates it.
func EmptyDatabase(t testing.TB) string {
	t.Helper()
	return servertest.Database(t, "empty", func(context.Context, string) error { return nil })
}

// Request makes a request to the API of a service and returns its answer. A status other than want
// is an error. Like a client, it repeats the request with the same key when a busy service answers
// 503.
func (d *Env) Request(service, method, path, key, body string, want int) (answer map[string]any,
	err error) {
	retry := want != http.StatusServiceUnavailable && (method != http.MethodPost || key != "")
	for until := time.Now().Add(quadrilletest.Timeout); ; {
		status, answer, err := d.requestOnce(service, method, path, key, body, want)
		if status != http.StatusServiceUnavailable || !retry || time.Now().After(until) {
			return answer, err
		}
	}
}

func (d *Env) requestOnce(service, method, path, key, body string, want int) (status int,
	answer map[string]any, err error) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	w := httptest.NewRecorder()
	tokens, err := web.LoadTokens("") // without tokens every client is an admin
	if err != nil {
		return 0, nil, err
	}
	tokens.Require(d.api[service]).ServeHTTP(w, r)
	if w.Code != want {
		return w.Code, nil, fmt.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	answer = map[string]any{"Retry-After": w.Header().Get("Retry-After")}
	return w.Code, answer, json.Unmarshal(w.Body.Bytes(), &answer)
}

// StockUp deposits money for the customer ada and adds teapots to the stock.
func (d *Env) StockUp() {
	d.t.Helper()
	for _, request := range []struct {
		service, method, path, key, body string
		want                             int
	}{
		{"payments", "PUT", "/accounts/ada", "", `{"currency":"EUR"}`, http.StatusOK},
		{"payments", "POST", "/accounts/ada/deposits", "d", `{"amount":1000000000,"currency":"EUR"}`,
			http.StatusCreated},
		{"inventory", "POST", "/stock/teapot/receipts", "r", `{"quantity":1000000}`, http.StatusCreated},
	} {
		if _, err := d.Request(request.service, request.method, request.path, request.key, request.body,
			request.want); err != nil {
			d.t.Fatal(err)
		}
	}
}

// Order places an order of ada for one teapot and returns its id.
func (d *Env) Order(key, country string) (string, error) {
	return d.OrderBy(key, "teapot", country, "")
}

// OrderBy is Order for any article. If card is not empty, the card pays.
func (d *Env) OrderBy(key, sku, country, card string) (string, error) {
	answer, err := d.Request("orders", "POST", "/orders", key,
		fmt.Sprintf(`{"customer":"ada","currency":"EUR","card":%q,
		"lines":[{"sku":%q,"quantity":1,"unit_price":100}],
		"address":{"name":"A","street":"1","city":"B","postal_code":"1","country":%q}}`, card, sku,
			country), http.StatusCreated)
	if err != nil {
		return "", err
	}
	return answer["id"].(string), nil
}

// Await waits until check returns true, or fails the test with what check last saw.
func Await(t testing.TB, what string, check func() (seen string, ok bool)) {
	t.Helper()
	AwaitFor(t, quadrilletest.Timeout, what, check)
}

// AwaitFor is Await with another time limit.
func AwaitFor(t testing.TB, bound time.Duration, what string, check func() (seen string, ok bool)) {
	t.Helper()
	quadrilletest.WaitAtMost(t, bound, what, func() (bool, string) {
		seen, ok := check()
		return ok, seen
	})
}
