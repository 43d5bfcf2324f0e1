package quadrilleotel_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/quadrilleotel"
)

type joined struct{ Name string }

func (joined) EventType() string { return "user.joined" }
func (j joined) Subject() string { return j.Name }

// A span continues the trace of the event, and what is published because of the event continues the
// span.
func TestSpanIsBetweenTheEventAndItsEffects(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	fault := errors.New("no")
	var inner string
	handle := quadrilleotel.Middleware(provider)(func(_ context.Context, e events.Event) error {
		inner = e.TraceParent
		return fault
	})
	err := handle(t.Context(), events.Event{ID: "1", TraceParent: parent, Data: joined{"ada"}})
	spans := recorder.Ended()
	if !errors.Is(err, fault) || len(spans) != 1 {
		t.Fatalf("%d spans, error %v", len(spans), err)
	}
	s := spans[0]
	if s.Name() != "handle user.joined" || s.Parent().SpanID().String() != "b7ad6b7169203331" ||
		!s.Parent().IsRemote() || s.Status().Code != codes.Error {
		t.Errorf("span %q with the parent %s, status %v", s.Name(), s.Parent().SpanID(), s.Status())
	}
	if !strings.HasPrefix(inner, "00-0af7651916cd43dd8448eb211c80319c-") ||
		!strings.Contains(inner, s.SpanContext().SpanID().String()) || !events.ValidTrace(inner) {
		t.Errorf("the handler's event has the trace %q", inner)
	}
}
