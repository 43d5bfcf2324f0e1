package quadrilleotel_test

import (
	"context"
	"fmt"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/quadrilleotel"
)

// A program gives a tracer to its services, and its own exporter to the provider. Here the spans
// are only recorded. A request whose span is in the context has the events that it publishes in its
// trace.
func Example() {
	spans := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(spans))
	config := quadrille.Config{Name: "members", Tracer: quadrilleotel.Tracer(provider)}

	ctx, request := provider.Tracer("example").Start(context.Background(), "POST /members")
	fmt.Println(config.Tracer.Current(ctx) == quadrilleotel.TraceParent(ctx))
	request.End()
	fmt.Println(spans.Ended()[0].Name())
	// Output:
	// true
	// POST /members
}
