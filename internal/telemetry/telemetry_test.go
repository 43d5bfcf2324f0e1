package telemetry

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	v1 "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/internal/telemetry/otlptest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"

func TestMain(m *testing.M) { leaks.Main(m) }

// lookupIn returns the lookup of an environment; t.Setenv sets the variables that the exporter
// reads.
func lookupIn(t *testing.T, env map[string]string) func(string) (string, bool) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	return func(name string) (string, bool) { value, ok := env[name]; return value, ok }
}

// Without a variable that asks for traces nothing is started: no goroutine, no tracer, no wrapper.
func TestNothingIsTracedUnlessAsked(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"no variable":    {"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
		"empty":          {endpoint: ""},
		"the SDK is off": {"OTEL_SDK_DISABLED": "True", endpoint: "http://x:1"},
		"no exporter":    {"OTEL_TRACES_EXPORTER": "none", endpoint: "http://x:1"},
		"metrics":        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x:1"},
	} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			traces, err := Start(t.Context(), "orders", lookupIn(t, env), zerolog.Nop())
			if err != nil || traces != nil {
				t.Fatalf("%v, %v", traces, err)
			}
			traces.Stop()
			if n := runtime.NumGoroutine(); n > before {
				t.Errorf("%d goroutines were started", n-before)
			}
			if traces.Tracer() != nil || traces.Transport(http.DefaultTransport) != http.DefaultTransport {
				t.Error("there is a tracer or a transport of its own")
			}
		})
	}
}

func TestWrongVariablesAreNamed(t *testing.T) {
	for want, env := range map[string]map[string]string{
		`OTEL_TRACES_EXPORTER: "zipkin" is not`: {"OTEL_TRACES_EXPORTER": "zipkin"},
		"OTEL_EXPORTER_OTLP_ENDPOINT: want":     {"OTEL_EXPORTER_OTLP_ENDPOINT": "u:hush@collector:4318"},
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: want": {
			"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "x:1"},
		`OTEL_EXPORTER_OTLP_PROTOCOL: "kafka" is not`: {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1",
			"OTEL_EXPORTER_OTLP_PROTOCOL": "kafka"},
		"OTEL_RESOURCE_ATTRIBUTES: ": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1",
			"OTEL_RESOURCE_ATTRIBUTES": "nothing"},
	} {
		t.Run(want, func(t *testing.T) {
			traces, err := Start(t.Context(), "orders", lookupIn(t, env), zerolog.Nop())
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("error %v, want one with %s and without the password", err, want)
			}
			traces.Stop()
		})
	}
}

// The spans of a request, and of its request to another server, reach a receiver in each protocol.
// The incoming trace context is the parent; the outgoing one is that of the last span.
func TestSpansReachTheReceiver(t *testing.T) {
	for protocol, start := range map[string]func(testing.TB) *otlptest.Receiver{
		"http/protobuf": otlptest.New, "grpc": otlptest.NewGRPC,
	} {
		t.Run(protocol, func(t *testing.T) {
			receiver := start(t)
			traces, err := Start(t.Context(), "orders", lookupIn(t, map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.URL, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
				"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
			}), zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			var outgoing string
			outside := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				outgoing = r.Header.Get("traceparent")
			}))
			defer outside.Close()
			client := http.Client{Transport: traces.Transport(http.DefaultTransport)}
			mux := http.NewServeMux()
			mux.HandleFunc("GET /things/{id}", func(_ http.ResponseWriter, r *http.Request) {
				NameByRoute(r)
				request, err := http.NewRequestWithContext(r.Context(), "GET", outside.URL, nil)
				if err != nil {
					t.Error(err)
					return
				}
				response, err := client.Do(request)
				if err != nil {
					t.Error(err)
					return
				}
				_ = response.Body.Close()
			})
			handler := traces.Handler(mux)
			for _, path := range []string{"/things/1", "/healthz", "/metrics"} {
				request := httptest.NewRequest("GET", path, nil)
				request.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
				handler.ServeHTTP(httptest.NewRecorder(), request)
			}
			client.CloseIdleConnections()
			traces.Stop()
			spans := map[string]otlptest.Span{}
			for _, s := range receiver.Spans() {
				spans[s.Name] = s
			}
			server, call := spans["GET /things/{id}"], spans["HTTP GET"]
			if len(spans) != 2 || server.Parent != "b7ad6b7169203331" || call.Parent != server.ID ||
				call.TraceID != "0af7651916cd43dd8448eb211c80319c" ||
				server.Kind != v1.Span_SPAN_KIND_SERVER || call.Kind != v1.Span_SPAN_KIND_CLIENT ||
				server.Attributes["http.route"] != "/things/{id}" {
				t.Errorf("the receiver has %+v", spans)
			}
			if want := "00-" + call.TraceID + "-" + call.ID + "-01"; outgoing != want {
				t.Errorf("the request outside has the traceparent %q, want %q", outgoing, want)
			}
			about := server.Resource
			if about["service.name"] != "orders" || about["service.version"] == "" ||
				about["deployment.environment.name"] != "test" {
				t.Errorf("the resource is %v", about)
			}
		})
	}
}

// A receiver that hangs, with time-outs of an hour, delays neither the making of more spans than
// the queue has room for nor the end of the program.
func TestAHangingReceiverDelaysNothing(t *testing.T) {
	address, asked := otlptest.NewHanging(t)
	traces, err := Start(t.Context(), "orders", lookupIn(t, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600000",
		"OTEL_BSP_EXPORT_TIMEOUT": "3600000", "OTEL_BSP_SCHEDULE_DELAY": "10",
	}), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	tracer := traces.provider.Tracer("test")
	done := make(chan struct{})
	go func() { // ends with the bound of Stop
		defer close(done)
		_, span := tracer.Start(t.Context(), "first")
		span.End()
		<-asked
		for range 10_000 {
			_, span := tracer.Start(t.Context(), "more")
			span.End()
		}
		traces.Stop()
	}()
	quadrilletest.WaitFor(t, "the program to end although the receiver hangs", func() (bool, string) {
		select {
		case <-done:
			return true, ""
		default:
			return false, "it has not ended"
		}
	})
}
