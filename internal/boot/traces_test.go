package boot

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/telemetry/otlptest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// runTraced runs the service with these variables, makes one request to it, and ends it.
func runTraced(t *testing.T, variables map[string]string) {
	t.Helper()
	addr := servertest.Addresses(t, 1)[0]
	env := settingsOf(variables)
	env["QUADRILLE_PLAIN_URL"] = "http://" + addr
	for name, value := range variables { // the exporter reads its own
		t.Setenv(name, value)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- runPlain(ctx, env) }()
	client := &webtest.Service{TB: t, URL: "http://" + addr}
	quadrilletest.WaitFor(t, "the service to answer", func() (bool, string) {
		a, err := client.Try(ctx, "GET", "/healthz", "")
		return err == nil && a.Status == http.StatusOK, fmt.Sprint(a, err)
	})
	if a := client.Call("GET", "/admin/relay", ""); a.Status != http.StatusServiceUnavailable {
		t.Errorf("without a database it answers %+v", a)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	quadrilletest.WaitFor(t, "the service to end", func() (bool, string) {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return true, ""
		default:
			return false, "it has not ended"
		}
	})
}

// A program exports its traces when the standard variables say so, the last ones at its end.
func TestTracesAreExported(t *testing.T) {
	receiver := otlptest.New(t)
	runTraced(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.URL,
		"OTEL_SERVICE_NAME": "plain-test", "OTEL_BSP_SCHEDULE_DELAY": "3600000"})
	spans := receiver.Spans()
	if len(spans) != 1 || spans[0].Name != "GET /admin/" ||
		spans[0].Service != "plain-test" || !spans[0].Failed {
		t.Errorf("the receiver has %+v", spans)
	}
}

// A receiver that never answers delays the end of a program by a bound of its own only.
func TestAHangingReceiverDoesNotKeepTheProgram(t *testing.T) {
	address, _ := otlptest.NewHanging(t)
	runTraced(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": address,
		"OTEL_EXPORTER_OTLP_TIMEOUT": "3600000", "OTEL_BSP_EXPORT_TIMEOUT": "3600000"})
}

// A wrong variable ends the program at the start.
func TestWrongTraceVariablesEndTheProgram(t *testing.T) {
	t.Parallel()
	err := runPlain(t.Context(), settingsOf(map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}))
	if err == nil || !strings.Contains(err.Error(), "OTEL_TRACES_EXPORTER: ") {
		t.Errorf("%v", err)
	}
}
