// Package telemetry exports the traces of one of the programs with OTLP, as the standard variables
// of OpenTelemetry say.
//
// It promises that without these variables nothing is traced, sent or started; that a wrong one is
// named at the start; and that a receiver that is away or hangs loses spans, but delays neither the
// program nor its end.
package telemetry

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/release"
	"github.com/quadrille-go/quadrille/quadrilleotel"
)

// flushTimeout is how long the end of a program waits for the receiver of its last spans.
const flushTimeout = 2 * time.Second

// Traces are the traces of a program. nil: the program is not traced.
type Traces struct {
	provider *sdk.TracerProvider
	log      zerolog.Logger
}

// Start returns the traces of a program, or nil if no variable asks for them. The exporter and the
// SDK read the rest of their variables from the environment: headers, certificates, compression,
// time-outs, sampler, limits and the size of the queue.
func Start(ctx context.Context, name string, lookup func(string) (string, bool),
	log zerolog.Logger) (*Traces, error) {
	protocol, err := protocolOf(lookup)
	if err != nil || protocol == "" {
		return nil, err
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn().Err(err).Msg("spans are lost, the next ones are sent nevertheless")
	}))
	client := otlptracehttp.NewClient()
	if protocol == "grpc" {
		client = otlptracegrpc.NewClient()
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_…: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName(name), semconv.ServiceVersion(release.Name())),
		resource.WithFromEnv()) // last, since it wins
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return &Traces{log: log, provider: sdk.NewTracerProvider(sdk.WithBatcher(exporter),
		sdk.WithResource(about))}, nil
}

// The protocols of OTLP; the first is the default.
func protocols() []string { return []string{"http/protobuf", "http/json", "grpc"} }

// protocolOf returns the protocol with which spans are exported, or "" if they are not.
func protocolOf(lookup func(string) (string, bool)) (string, error) {
	get := func(names ...string) (name, value string) {
		for _, name = range names {
			if value, _ = lookup(name); value != "" {
				return name, strings.TrimSpace(value)
			}
		}
		return name, ""
	}
	if _, disabled := get("OTEL_SDK_DISABLED"); strings.EqualFold(disabled, "true") {
		return "", nil
	}
	_, exporter := get("OTEL_TRACES_EXPORTER")
	variable, endpoint := get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	switch {
	case exporter == "none", exporter == "" && endpoint == "":
		return "", nil
	case exporter != "" && exporter != "otlp":
		return "", fmt.Errorf("OTEL_TRACES_EXPORTER: %.40q is not supported: use otlp or none", exporter)
	}
	if u, err := url.Parse(endpoint); endpoint != "" && (err != nil || u.Host == "" ||
		u.Scheme != "http" && u.Scheme != "https") {
		return "", fmt.Errorf("%s: want an address such as http://127.0.0.1:4318", variable)
	}
	variable, protocol := get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	if protocol == "" {
		return protocols()[0], nil
	}
	if !slices.Contains(protocols(), protocol) {
		return "", fmt.Errorf("%s: %.40q is not a protocol of OTLP: use one of %s", variable, protocol,
			strings.Join(protocols(), ", "))
	}
	return protocol, nil
}

// Tracer returns the tracer of the program's service; nil if it is not traced.
func (t *Traces) Tracer() *quadrille.Tracer {
	if t == nil {
		return nil
	}
	return quadrilleotel.Tracer(t.provider)
}

// Stop sends the last spans, for at most flushTimeout.
func (t *Traces) Stop() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn().Err(err).Msg("the last spans are lost")
	}
}
