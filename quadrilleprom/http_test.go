package quadrilleprom_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/quadrilleprom"
)

// Requests are counted by what the program knows: its patterns, known methods and the class of the
// status. What a client makes up has no label of its own.
func TestRequestsHaveFewLabels(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders/{order}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("order") == "2" {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("no") })
	registry := prometheus.NewPedanticRegistry()
	h := quadrilleprom.Requests(registry, mux, nil)
	for _, request := range []string{"GET /orders/1", "GET /orders/2", "GET /orders/3", "BREW /pot",
		"GET /nothing", "GET /panic"} {
		method, path, _ := strings.Cut(request, " ")
		func() {
			defer func() { _ = recover() }()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
		}()
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d families: %v", len(families), err)
	}
	var got []string
	for _, m := range families[0].GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetValue())
		}
		got = append(got, strings.Join(labels, " ")+" "+
			string(rune('0'+m.GetHistogram().GetSampleCount())))
	}
	slices.Sort(got)
	want := []string{"GET /orders/{order} 2xx 2", "GET /orders/{order} 5xx 1", "GET /panic 5xx 1",
		"GET none 4xx 1", "other none 4xx 1"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A database that does not answer costs a collection two seconds at most, and one read at a time
// waits for it.
func TestCollectionDoesNotHang(t *testing.T) {
	t.Parallel()
	var reads atomic.Int32
	release := make(chan struct{})
	get := quadrilleprom.CacheOf(func(context.Context) (quadrille.Backlog, error) {
		reads.Add(1)
		<-release // like the driver on a silent connection, it ignores its context
		return quadrille.Backlog{Unpublished: 7}, nil
	})
	for range 2 {
		began := time.Now()
		if _, ok := get(); ok {
			t.Error("there is a backlog although nothing was read")
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
	}
	close(release)
	if b, ok := get(); !ok || b.Unpublished != 7 {
		t.Errorf("%+v, %v", b, ok)
	}
	if n := reads.Load(); n != 1 {
		t.Errorf("%d reads", n)
	}
}

// Several systems may scrape a service, and the database is read once for all of them.
func TestBacklogIsReadOnceInSomeSeconds(t *testing.T) {
	t.Parallel()
	reads := 0
	get := quadrilleprom.CacheOf(func(context.Context) (quadrille.Backlog, error) {
		reads++
		return quadrille.Backlog{}, errors.New("away")
	})
	for range 3 {
		if _, ok := get(); ok {
			t.Error("a failed read counts as one")
		}
	}
	if reads != 1 {
		t.Errorf("%d reads", reads)
	}
}
