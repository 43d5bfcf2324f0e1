package quadrilleotel_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/tracing"
	"github.com/quadrille-go/quadrille/quadrilleotel"
)

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
	parent  = "00-" + traceID + "-" + spanID + "-01"
)

var placed = events.Record{ID: "1", Source: "/orders", Type: "order.placed", Subject: "o",
	CorrelationID: "c", TraceParent: parent}

func recorded(t *testing.T) (*quadrille.Tracer, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	return quadrilleotel.Tracer(sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))), recorder
}

// Each kind of work has the name, the kind and the attributes of the conventions. Its parent is the
// trace context of the event, and what it causes is in the same trace.
func TestSpansFollowTheConventions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step tracing.Step
		name string
		kind trace.SpanKind
		want []string
	}{
		{tracing.Step{Operation: tracing.Send, Exchange: "orders.events"},
			"publish orders.events:order.placed", trace.SpanKindProducer, []string{
				"messaging.system=rabbitmq", "messaging.operation.name=publish",
				"messaging.operation.type=send", "messaging.destination.name=orders.events:order.placed",
				"messaging.rabbitmq.destination.routing_key=order.placed", "messaging.message.id=1",
				"messaging.message.conversation_id=c", "cloudevents.event_source=/orders",
				"cloudevents.event_subject=o"}},
		{tracing.Step{Operation: tracing.Process, Exchange: "orders.events", Queue: "payments.in",
			Attempt: 2, Batch: 7}, "process orders.events:order.placed:payments.in",
			trace.SpanKindConsumer, []string{"messaging.operation.type=process",
				"messaging.destination.name=orders.events:order.placed:payments.in",
				"quadrille.attempt=2", "quadrille.batch_size=7"}},
		{tracing.Step{Operation: tracing.React, Attempt: 1}, "react order.placed",
			trace.SpanKindInternal, []string{"cloudevents.event_type=order.placed"}},
		{tracing.Step{Operation: tracing.Call, Attempt: 1}, "call order.placed",
			trace.SpanKindInternal, []string{"cloudevents.event_id=1"}},
	} {
		tracer, recorder := recorded(t)
		c.step.Event = placed
		span := tracer.Begin(c.step)
		inner := trace.SpanFromContext(span.Into(t.Context()))
		span.End(nil)
		s := recorder.Ended()[0]
		if s.Name() != c.name || s.SpanKind() != c.kind || s.Parent().SpanID().String() != spanID ||
			s.Parent().TraceID().String() != traceID || !s.Parent().IsRemote() ||
			s.Status().Code != codes.Unset || !strings.HasSuffix(s.InstrumentationScope().SchemaURL,
			"/1.43.0") {
			t.Errorf("span %q of kind %s with the parent %s, status %v", s.Name(), s.SpanKind(),
				s.Parent().SpanID(), s.Status())
		}
		if want := "00-" + traceID + "-" + s.SpanContext().SpanID().String() + "-01"; span.
			TraceParent != want || inner.SpanContext().SpanID() != s.SpanContext().SpanID() {
			t.Errorf("%s: %s is passed on, want %s", c.name, span.TraceParent, want)
		}
		if n := len(s.Links()); (n == 1) != (c.step.Operation == tracing.Process) {
			t.Errorf("%s has %d links", c.name, n)
		}
		for _, want := range c.want {
			if !slices.ContainsFunc(s.Attributes(), func(a attribute.KeyValue) bool {
				return string(a.Key)+"="+a.Value.Emit() == want
			}) {
				t.Errorf("%s lacks %s: %v", c.name, want, s.Attributes())
			}
		}
	}
}

// A failure is the status of its span. The rollback of a whole batch is not a failure of each.
func TestOnlyAFailureOfItsOwnIsAnError(t *testing.T) {
	t.Parallel()
	tracer, recorder := recorded(t)
	tracer.Begin(tracing.Step{Event: placed}).End(errors.New("no " + strings.Repeat("long", 1000)))
	tracer.Begin(tracing.Step{Event: placed}).End(tracing.RolledBackError{Err: errors.New("no")})
	failed, together := recorder.Ended()[0].Status(), recorder.Ended()[1].Status()
	if failed.Code != codes.Error || !strings.HasPrefix(failed.Description, "no long") ||
		len(failed.Description) != 2000 {
		t.Errorf("status %v with %d bytes", failed.Code, len(failed.Description))
	}
	if together.Code != codes.Unset {
		t.Errorf("the status of one of a batch is %v", together)
	}
}

// An event without a valid trace context begins a trace, and so does what is published outside of
// any span: its first span exists.
func TestATraceBeginsWithASpan(t *testing.T) {
	t.Parallel()
	tracer, recorder := recorded(t)
	e := placed
	e.TraceParent = "junk"
	tracer.Begin(tracing.Step{Event: e}).End(nil)
	begun := tracer.Current(t.Context())
	spans := recorder.Ended()
	if len(spans) != 2 || spans[0].Parent().IsValid() || !events.ValidTrace(begun) ||
		!strings.Contains(begun, spans[1].SpanContext().SpanID().String()) {
		t.Errorf("%d spans, %s begins a trace", len(spans), begun)
	}
	if none := quadrilleotel.TraceParent(t.Context()); none != "" {
		t.Errorf("a context without a span has the trace context %s", none)
	}
}

// A message that is no event may contain any bytes. Its span is valid and bounded.
func TestForeignTextIsValidAndBounded(t *testing.T) {
	t.Parallel()
	tracer, recorder := recorded(t)
	foreign := "\xff\xfe" + strings.Repeat("long", 1000)
	tracer.Begin(tracing.Step{Operation: tracing.Process, Exchange: "orders.events", Queue: "q",
		Event: events.Record{ID: foreign, Source: foreign, Type: foreign, Subject: foreign,
			CorrelationID: foreign}}).End(errors.New(foreign))
	s := recorder.Ended()[0]
	texts := []string{s.Name(), s.Status().Description}
	for _, a := range s.Attributes() {
		texts = append(texts, a.Value.Emit())
	}
	for _, text := range texts {
		if !utf8.ValidString(text) || len(text) > 2000 {
			t.Errorf("a text of %d bytes: %.40q", len(text), text)
		}
	}
}
