package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/resilience"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// documented returns the metrics in the table of docs/metrics.md, with their types.
func documented(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(
		"(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\| *([^|]*?) *\\| .+ \\|$")
	all := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(content), -1) {
		if all[m[1]] != "" {
			t.Errorf("%s is documented twice", m[1])
		}
		all[m[1]] = m[2] + " " + m[3]
	}
	if len(all) < 30 {
		t.Fatalf("docs/metrics.md has only %d rows in the expected form", len(all))
	}
	return all
}

// ordersService starts orders on servers of its own, with a breaker, so that it has every metric.
func ordersService(t *testing.T) (url, broker string) {
	t.Helper()
	servers := quadrilletest.Shared(t)
	broker = servers.VirtualHost(t)
	config := quadrille.Config{Database: servers.Database(t), AMQP: broker,
		Log:        zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel),
		Components: []quadrille.Component{resilience.Breakers{{Name: "provider"}}}}
	service, api, err := orders.New(config, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := quadrille.ApplyTopology(t.Context(), broker, service.Config().Topology); err != nil {
		t.Fatal(err)
	}
	return serve(t, service, api), broker
}

// serve runs a service and its API.
func serve(t *testing.T, service *quadrille.Service, api http.Handler) (url string) {
	t.Helper()
	tokens, err := web.LoadTokens("")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(web.Mux(service, tokens, api, web.Concurrency))
	t.Cleanup(func() {
		server.Close()
		if err := service.Close(); err != nil {
			t.Error(err)
		}
	})
	quadrilletest.Run(t, service)
	return server.URL
}
