package quadrilleotel_test

import (
	"context"
	"fmt"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/quadrilleotel"
)

// A program gives the middleware to its services, and its own exporter to the provider. Here the
// spans are only recorded, and the middleware is called as a service calls it for each event.
func Example() {
	spans := tracetest.NewSpanRecorder()
	trace := quadrilleotel.Middleware(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	_ = quadrille.Config{Name: "members", Middleware: []consumer.Middleware{trace}}

	handle := trace(func(context.Context, events.Event) error { return nil })
	err := handle(context.Background(), events.Event{ID: events.NewID(), Data: joined{"ada"}})
	fmt.Println(spans.Ended()[0].Name(), err)
	// Output: handle user.joined <nil>
}
