package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/telemetry"
	"github.com/quadrille-go/quadrille/quadrilleprom"
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
	adminTimeout      = 8 * time.Second
	auditTimeout      = 5 * time.Minute // an audit reads whole tables
)

// Serve serves until ctx is done, then waits for the requests in progress, for at most
// shutdownTimeout.
func Serve(ctx context.Context, listener net.Listener, h http.Handler, log zerolog.Logger) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout,
		IdleTimeout:  idleTimeout, MaxHeaderBytes: maxHeader,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }() // returns after Shutdown
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

// Mux returns the HTTP handler of a service: health and metrics without a token, the API of the
// service for clients, and the admin endpoint for admins. The metrics are those of the service, of
// all requests, of the process and of the Go runtime. At most so many requests of the API are
// handled at the same time.
func Mux(service *quadrille.Service, tokens *Tokens, api http.Handler,
	concurrency int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_ = Write(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ready(w, r, service)
	})
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(quadrilleprom.Collector(service), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.Handle("GET /admin/audit",
		tokens.RequireAdmin(withBody(withTimeout(auditTimeout, service.Admin()))))
	mux.Handle("/admin/", tokens.RequireAdmin(withBody(withTimeout(adminTimeout, service.Admin()))))
	mux.Handle("/", tokens.Require(withBody(withTurns(concurrency, api))))
	return quadrilleprom.Requests(metrics, ensureAnswer(service.Config().Log,
		Guard(checkAddress(mux), tokens.configured())), func(r *http.Request) string {
		return routeOf(r, api)
	})
}

// routeOf returns the pattern of a request that was routed. A request for the API has the pattern
// of the API's own routes, even if it was refused before it got there.
func routeOf(r *http.Request, api http.Handler) string {
	if routes, ok := api.(*http.ServeMux); ok && r.Pattern == "/" {
		_, pattern := routes.Handler(r)
		return pattern
	}
	return r.Pattern
}

// withTimeout limits the time of a handler. One that may take longer than others has that time to
// write its answer, too.
func withTimeout(bound time.Duration, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		telemetry.NameByRoute(r)
		ctx, cancel := context.WithTimeout(r.Context(), bound)
		defer cancel()
		if bound > writeTimeout {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(bound))
		}
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}
