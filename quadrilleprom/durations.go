package quadrilleprom

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// Durations returns a middleware that observes how long each handler, reaction and outside call
// takes, in seconds, by the type of the event and by whether it failed. It registers one histogram,
// quadrille_handler_seconds.
func Durations(r prometheus.Registerer) consumer.Middleware {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "quadrille_handler_seconds",
		Help: "Duration of handlers, reactions and outside calls."}, []string{"type", "failed"})
	r.MustRegister(seconds)
	return func(next consumer.Next) consumer.Next {
		return func(ctx context.Context, e events.Event) error {
			began := time.Now()
			err := next(ctx, e)
			seconds.WithLabelValues(e.Data.EventType(), strconv.FormatBool(err != nil)).
				Observe(time.Since(began).Seconds())
			return err
		}
	}
}

// Requests returns a handler that observes how long each HTTP request of another handler takes, by
// its method, its route and the class of its status, such as 2xx. It registers one histogram,
// quadrille_http_request_seconds.
//
// The route is the pattern that an http.ServeMux has found, or what route returns after the
// request; paths, which clients choose, are never used. Without a pattern it is "none".
func Requests(r prometheus.Registerer, next http.Handler,
	route func(*http.Request) string) http.Handler {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "quadrille_http_request_seconds", Help: "Duration of HTTP requests."},
		[]string{"method", "route", "status"})
	r.MustRegister(seconds)
	if route == nil {
		route = func(r *http.Request) string { return r.Pattern }
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, s := time.Now(), &statusWriter{ResponseWriter: w}
		completed := false
		defer func() { // also when the handler panics
			if !completed {
				s.status = http.StatusInternalServerError
			}
			seconds.WithLabelValues(methodOf(r), pathOf(route(r)), s.class()).
				Observe(time.Since(began).Seconds())
		}()
		next.ServeHTTP(s, r)
		completed = true
	})
}

// methodOf returns the method of a request; what a client has made up is "other".
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "other"
}

// pathOf returns the pattern of a route without its method.
func pathOf(pattern string) string {
	if _, path, found := strings.Cut(pattern, " "); found {
		pattern = path
	}
	if pattern == "" {
		return "none"
	}
	return pattern
}

// statusWriter records the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int // 0: none was written, which net/http answers with 200
}

// WriteHeader implements http.ResponseWriter.
func (s *statusWriter) WriteHeader(status int) {
	if s.status < http.StatusOK { // a 1xx status precedes the answer
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *statusWriter) class() string {
	status := s.status
	if status == 0 {
		status = http.StatusOK
	}
	return strconv.Itoa(status/100) + "xx" //nolint:mnd // the class is the first digit
}
