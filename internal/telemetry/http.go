package telemetry

import (
	"net/http"
	"slices"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Handler makes a span of each request, whose traceparent is the parent. Probes and metrics get
// none, since they come all the time.
func (t *Traces) Handler(h http.Handler) http.Handler {
	if t == nil {
		return h
	}
	// The copy keeps the pattern of the outer mux, which is the same for all requests, out of the name
	// of the span; see NameByRoute.
	copied := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(r.Context()))
	})
	return otelhttp.NewHandler(copied, "", otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithFilter(func(r *http.Request) bool {
			return !slices.Contains([]string{"/healthz", "/readyz", "/metrics"}, r.URL.Path)
		}))
}

// NameByRoute names the span of a request by the pattern of its route, such as "POST /orders".
func NameByRoute(r *http.Request) {
	span := trace.SpanFromContext(r.Context())
	if !span.IsRecording() || r.Pattern == "" {
		return
	}
	method, route, ok := strings.Cut(r.Pattern, " ")
	if !ok { // a pattern for all methods; those of HTTP are few
		method, route = "HTTP", r.Pattern
		if r.Method == http.MethodGet || r.Method == http.MethodPost {
			method = r.Method
		}
	}
	span.SetName(method + " " + route)
	span.SetAttributes(semconv.HTTPRoute(route))
}

// Transport makes a span of each outside request, and sends its trace context as traceparent.
func (t *Traces) Transport(base http.RoundTripper) http.RoundTripper {
	if t == nil {
		return base
	}
	return otelhttp.NewTransport(base, otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithPropagators(propagation.TraceContext{}))
}
