package demo

import (
	"slices"
	"testing"
)

// The services get the variables of OpenTelemetry, but each keeps its own name.
func TestTraceVariablesReachTheServices(t *testing.T) {
	t.Parallel()
	got := traceVariables([]string{"PATH=/", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318",
		"OTEL_SERVICE_NAME=all", "HOTEL_=x"})
	want := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
