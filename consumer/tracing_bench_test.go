package consumer_test

import (
	"context"
	"fmt"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/quadrilleotel"
)

// discarded takes spans as a receiver does that is always quick.
type discarded struct{}

func (discarded) ExportSpans(context.Context, []sdk.ReadOnlySpan) error { return nil }
func (discarded) Shutdown(context.Context) error                        { return nil }

// BenchmarkTracing handles b.N events of the bank from a full queue. Their spans are not made
// (off), or made and not recorded by the sampler, or recorded and exported:
//
//	go test ./consumer -run '^$' -bench Tracing -benchtime 20000x -count 5
func BenchmarkTracing(b *testing.B) {
	for _, c := range []struct {
		name     string
		provider func() trace.TracerProvider
	}{
		{"off", nil},
		{"unsampled", func() trace.TracerProvider {
			return sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample()))
		}},
		{"exported", func() trace.TracerProvider {
			return sdk.NewTracerProvider(sdk.WithBatcher(discarded{}))
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := prefilled(b)
			consumer := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler())
			if c.provider != nil {
				provider := c.provider()
				consumer.Tracer = quadrilleotel.Tracer(provider)
				b.Cleanup(func() { _ = provider.(*sdk.TracerProvider).Shutdown(context.Background()) })
			}
			b.ReportAllocs()
			b.ResetTimer()
			stop := w.Start(consumer)
			w.Eventually("all are handled", func() (bool, string) {
				return consumer.Stats().Handled == int64(b.N), fmt.Sprint(consumer.Stats())
			})
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			stop()
			w.Drained()
		})
	}
}
