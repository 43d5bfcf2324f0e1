package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

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
