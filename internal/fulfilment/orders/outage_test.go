package orders_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// atOnce is far below every time-out of the database or of a request.
const atOnce = 3 * time.Second

// Without its database a service says so at once, to all who ask; with it back, all is well.
func TestADatabaseThatIsAwayIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	servers := servertest.PrivatePostgres(t)
	database := servers.PostgresURL
	w := env{webtest.On(t, database, service, "")}
	before := w.place("ada")
	if err := servers.KillPostgres(); err != nil {
		t.Fatal(err)
	}
	// One that starts only now has never seen its database.
	late, api := webtest.Must(orders.New(webtest.Config(database, zerolog.Nop()), within))
	defer func() { _ = late.Close() }()
	tokens, err := web.LoadTokens("")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(web.Mux(late, tokens, api, web.Concurrency))
	defer server.Close()
	service := env{&webtest.Service{TB: t, Kit: late, URL: server.URL}}
	for _, s := range []env{w, service} {
		away := func(method, path, body string, headers ...string) error {
			began := time.Now()
			a, err := s.Try(t.Context(), method, path, body, headers...)
			switch took := time.Since(began); {
			case err != nil:
				return err
			case a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" ||
				a.Header.Get("Content-Type") != "application/problem+json":
				return fmt.Errorf("%s %s: %d %v %s", method, path, a.Status, a.Header, a.Body)
			case took > atOnce:
				return fmt.Errorf("%s %s: it took %s to say that the database is away", method, path, took)
			}
			return nil
		}
		webtest.Together(t, 40, func(i int) error {
			return away("POST", "/orders", order("ada"), "Idempotency-Key", fmt.Sprint("k", i%20))
		})
		for _, path := range []string{"GET /orders/" + before.ID, "GET /orders", "POST /orders/" +
			before.ID + "/cancellation", "GET /admin/parked"} {
			method, path, _ := strings.Cut(path, " ")
			if err := away(method, path, ""); err != nil {
				t.Error(err)
			}
		}
		s.Want(s.Call("GET", "/healthz", ""), http.StatusOK, "alive")
		if a := s.Call("GET", "/readyz", ""); a.Status != http.StatusServiceUnavailable {
			t.Errorf("readyz: %+v", a)
		}
		if a := s.Call("GET", "/metrics", ""); a.Status != http.StatusOK {
			t.Errorf("metrics: %+v", a)
		}
	}
	if err := servers.RestartPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range []env{w, service} {
		quadrilletest.WaitFor(t, "the service heals", func() (bool, string) {
			a := s.post(order("ada"), "Idempotency-Key", "k0")
			return a.Status == http.StatusCreated, a.Body
		})
		if v := s.show(before.ID); v.State != orders.Placed {
			t.Errorf("order %+v", v)
		}
		s.Want(s.Call("GET", "/readyz", ""), http.StatusOK, `"status":"ready"`, "not connected")
	}
	if n := w.Int(`SELECT count(*) FROM orders`); n != 2 {
		t.Errorf("%d orders of two keys", n)
	}
}
