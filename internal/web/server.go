package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
)

// The bounds of a connection.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 15 * time.Second
	idleTimeout       = time.Minute
	maxHeader         = 16 << 10
	shutdownTimeout   = 5 * time.Second
	probeTimeout      = 3 * time.Second
)

// Serve serves until ctx is done, then lets requests in hand finish within a bound.
func Serve(ctx context.Context, listener net.Listener, h http.Handler, log zerolog.Logger) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }() // ends with Shutdown
	log.Info().Str("url", "http://"+listener.Addr().String()).Msg("serving")
	select {
	case err := <-failed:
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop http: %w", err)
	}
	return nil
}

// Mux is the frame of a service's HTTP: health and metrics for everybody, the service's API and the
// admin endpoint for clients.
func Mux(service *quadrille.Service, tokens *Tokens, api http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_ = Write(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { ready(w, r, service) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics(service), promhttp.HandlerOpts{}))
	mux.Handle("/admin/", tokens.Require(service.Admin()))
	mux.Handle("/", tokens.Require(api))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { mux.ServeHTTP(&plainless{ResponseWriter: w}, r) })
}

// plainless makes problems of what the standard library says in plain text: 404 and 405.
type plainless struct {
	http.ResponseWriter
	mute bool
}

func (p *plainless) WriteHeader(status int) {
	if status < http.StatusBadRequest || !strings.HasPrefix(p.Header().Get("Content-Type"), "text/plain") {
		p.ResponseWriter.WriteHeader(status)
		return
	}
	p.mute = true
	WriteProblem(p.ResponseWriter, Problemf(status, ""))
}

func (p *plainless) Write(b []byte) (int, error) {
	if p.mute {
		return len(b), nil
	}
	return p.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (p *plainless) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// ready answers for the database; the broker is a detail, since the API works without it, unless
// full=1 asks for all.
func ready(w http.ResponseWriter, r *http.Request, service *quadrille.Service) {
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	state := map[string]string{"status": "ready", "database": "ok", "broker": "ok"}
	status := http.StatusOK
	if err := service.Ready(ctx); err != nil {
		state["status"], state["database"], status = "not ready", "not available or not migrated", http.StatusServiceUnavailable
	}
	if !service.Connected() {
		state["broker"] = "not connected, or the topology is not applied"
		if r.URL.Query().Get("full") == "1" {
			state["status"], status = "not ready", http.StatusServiceUnavailable
		}
	}
	_ = Write(w, status, state)
}

// metrics registers what a service counts.
func metrics(service *quadrille.Service) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	count := func(name, help string, value func(quadrille.Stats) int64) {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quadrille_" + name, Help: help},
			func() float64 { return float64(value(service.Stats())) }))
	}
	gauge := func(name, help string, value func(quadrille.Stats) float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quadrille_" + name, Help: help},
			func() float64 { return value(service.Stats()) }))
	}
	count("outbox_published_total", "Events confirmed by the broker.", func(s quadrille.Stats) int64 { return s.Relay.Published })
	gauge("outbox_streaming", "1 while this replica leads and streams, instead of reading through the window.", func(s quadrille.Stats) float64 {
		if s.Relay.Streaming {
			return 1
		}
		return 0
	})
	gauge("outbox_slot_lag_bytes", "Log that the server keeps for the stream.", func(s quadrille.Stats) float64 { return float64(s.Relay.LagBytes) })
	count("outbox_forgotten_total", "Events whose time in the outbox has passed.", func(s quadrille.Stats) int64 { return s.Relay.Forgotten })
	count("events_handled_total", "Events that took effect.", func(s quadrille.Stats) int64 { return s.Consumer.Handled })
	count("inbox_duplicates_total", "Deliveries of events that had taken effect before.", func(s quadrille.Stats) int64 { return s.Consumer.Duplicates })
	count("events_delayed_total", "Failed attempts that are made again.", func(s quadrille.Stats) int64 { return s.Consumer.Delayed })
	count("events_parked_total", "Events that were parked.", func(s quadrille.Stats) int64 { return s.Consumer.Parked })
	count("consumer_batches_total", "Transactions of the consumer.", func(s quadrille.Stats) int64 { return s.Consumer.Batches })
	gauge("outbox_held_events", "Rows that the broker has not taken.", func(s quadrille.Stats) float64 { return float64(s.Relay.Held) })
	for _, b := range service.Breakers {
		labels := prometheus.Labels{"breaker": b.Name}
		registry.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quadrille_breaker_open", Help: "1 while the breaker is not closed.", ConstLabels: labels},
				func() float64 {
					if b.Stats().State == "closed" {
						return 0
					}
					return 1
				}),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quadrille_breaker_opened_total", Help: "Times that the breaker opened.", ConstLabels: labels},
				func() float64 { return float64(b.Stats().Opened) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quadrille_breaker_refused_total", Help: "Calls that were not made.", ConstLabels: labels},
				func() float64 { return float64(b.Stats().Refused) }))
	}
	return registry
}
