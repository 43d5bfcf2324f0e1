package quadrilleotel_test

import (
	"context"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/tracing"
	"github.com/quadrille-go/quadrille/quadrilleotel"
)

type discarded struct{}

func (discarded) ExportSpans(context.Context, []sdk.ReadOnlySpan) error { return nil }
func (discarded) Shutdown(context.Context) error                        { return nil }

// BenchmarkSpan is the cost of one span: when tracing is off, when the sampler drops the span, and
// when it is recorded and exported.
func BenchmarkSpan(b *testing.B) {
	step := tracing.Step{Operation: tracing.Process, Event: placed, Exchange: "orders.events",
		Queue: "payments.in", Attempt: 1, Batch: 1}
	for name, tracer := range map[string]*quadrille.Tracer{
		"off": nil,
		"unsampled": quadrilleotel.Tracer(sdk.NewTracerProvider(
			sdk.WithSampler(sdk.NeverSample()))),
		"exported": quadrilleotel.Tracer(sdk.NewTracerProvider(sdk.WithBatcher(discarded{}))),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if tracer != nil { // as the machinery does
					tracer.Begin(step).End(nil)
				}
			}
		})
	}
}
