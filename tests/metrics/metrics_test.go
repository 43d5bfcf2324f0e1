package metrics_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// maxSeries is far above what a service of four types exports, and far below what one label with
// ids would.
const maxSeries = 800

// scrape returns the text of a service's metrics.
func scrape(t *testing.T, url string) string {
	t.Helper()
	return get(t, http.MethodGet, url+"/metrics", "", http.StatusOK)
}

func get(t *testing.T, method, url, body string, want int) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", rand.Text())
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	text, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != want {
		t.Fatalf("%s %s: %s %s %v", method, url, a.Status, text, err)
	}
	return string(text)
}

// families parses the text of metrics.
func families(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	found, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A service exports exactly the metrics of docs/metrics.md, with their types and labels, by the
// rules of Prometheus, after it has published, handled and refused something.
func TestMetricsAreThoseOfTheGuide(t *testing.T) {
	t.Parallel()
	text := afterSomeOrders(t)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	exported, series := map[string]string{}, 0
	for name, f := range families(t, text) {
		series += len(f.GetMetric())
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		exported[name] = strings.ToLower(f.GetType().String()) + " " +
			strings.Join(slices.Sorted(maps.Keys(labels)), ", ")
	}
	if series > maxSeries {
		t.Errorf("%d series, at most %d", series, maxSeries)
	}
	guide := documented(t)
	for name, is := range exported {
		kind, labels, _ := strings.Cut(guide[name], " ")
		list := strings.Split(strings.TrimSpace(labels), ", ")
		slices.Sort(list)
		if want := kind + " " + strings.Join(list, ", "); is != want {
			t.Errorf("docs/metrics.md says of %s %q, and it is %q", name, want, is)
		}
	}
	for name := range guide {
		if exported[name] == "" {
			t.Errorf("docs/metrics.md has %s, which is not exported", name)
		}
	}
}

// afterSomeOrders returns the metrics of orders when one order was confirmed, one was cancelled and
// one is open.
func afterSomeOrders(t *testing.T) (text string) {
	t.Helper()
	url, broker := ordersService(t)
	place := func() string {
		var placed struct{ ID string }
		answer := get(t, http.MethodPost, url+"/orders", `{"customer":"ada","currency":"EUR","lines":
			[{"sku":"tea","quantity":1,"unit_price":250}],"address":{"name":"Ada","street":"1 Row",
			"city":"Berlin","postal_code":"10115","country":"DE"}}`, http.StatusCreated)
		if err := json.Unmarshal([]byte(answer), &placed); err != nil {
			t.Fatal(err)
		}
		return placed.ID
	}
	confirmed, cancelled := place(), place()
	place()
	quadrilletest.Publish(t, broker, "shipping",
		fulfilment.ShipmentScheduled{OrderID: confirmed, Country: "DE"})
	for range 2 { // the second request changes nothing
		get(t, http.MethodPost, url+"/orders/"+cancelled+"/cancellation", "", http.StatusOK)
	}
	get(t, http.MethodGet, url+"/orders/none", "", http.StatusBadRequest)
	want := []string{"quadrille_outbox_published_total 5", "quadrille_outbox_unpublished_events 0",
		`quadrille_outbox_attempts_total{result="confirmed"} 5`,
		"quadrille_outbox_confirm_seconds_count 5", "quadrille_delivery_commit_seconds_count 1",
		"quadrille_event_lag_seconds_count 1", "quadrille_outbox_leading 1", "quadrille_consuming 1",
		"quadrille_broker_blocked 0", `quadrille_pending_events{kind="deadline"} 3`,
		`quadrille_events_processed_total{result="handled",type="shipment.scheduled"} 1`,
		`fulfilment_orders_open{age="0-1m",state="placed"} 1`,
		`fulfilment_order_seconds_count{result="confirmed"} 1`,
		`fulfilment_order_seconds_count{result="cancelled"} 1`,
		`quadrille_http_request_seconds_count{method="POST",route="/orders",status="2xx"} 3`,
		`quadrille_http_request_seconds_count{method="GET",route="/orders/{order}",status="4xx"} 1`,
		`quadrille_build_info{goversion="` + runtime.Version() + `",service="orders",version=`,
		`quadrille_topology_info{marker="` + fulfilment.Topology().Marker() + `"`}
	quadrilletest.WaitFor(t, "the metrics to show what was done", func() (bool, string) {
		text = scrape(t, url)
		missing := slices.DeleteFunc(slices.Clone(want),
			func(line string) bool { return strings.Contains(text, "\n"+line) })
		return len(missing) == 0, fmt.Sprintf("missing %q in\n%s", missing, text)
	})
	return text
}
