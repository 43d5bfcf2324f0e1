// Package quadrilleotel traces a service with OpenTelemetry: a span for each handler, reaction and
// outside call.
//
// It promises that a span has the span of the publishing service as its remote parent, and is
// itself the parent of what is published, scheduled or called because of the event, also in other
// services: the trace travels in the traceparent of the event (W3C Trace Context). It exports
// nothing: hand it the provider of your program.
package quadrilleotel

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

const scope = "github.com/quadrille-go/quadrille/quadrilleotel"

// Middleware returns a middleware that opens a span for each event that is handled. Its attributes
// are those of OpenTelemetry's semantic conventions for messaging. An error of the handler is
// recorded in the span.
func Middleware(provider trace.TracerProvider) consumer.Middleware {
	tracer := provider.Tracer(scope)
	var w3c propagation.TraceContext
	return func(next consumer.Next) consumer.Next {
		return func(ctx context.Context, e events.Event) error {
			carrier := propagation.MapCarrier{"traceparent": e.TraceParent}
			ctx, span := tracer.Start(w3c.Extract(ctx, carrier), "handle "+e.Data.EventType(),
				trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
					attribute.String("messaging.system", "rabbitmq"),
					attribute.String("messaging.operation.type", "process"),
					attribute.String("messaging.message.id", e.ID),
					attribute.String("messaging.message.conversation_id", e.CorrelationID),
					attribute.String("cloudevents.event_type", e.Data.EventType()),
					attribute.String("cloudevents.event_source", e.Source),
					attribute.String("cloudevents.event_subject", e.Data.Subject()),
					attribute.Int("quadrille.attempt", consumer.AttemptOf(ctx))))
			defer span.End()
			if c := span.SpanContext(); c.IsValid() {
				e.TraceParent = fmt.Sprintf("00-%s-%s-%s", c.TraceID(), c.SpanID(), c.TraceFlags())
			}
			err := next(ctx, e)
			if err != nil {
				span.RecordError(err)
				span.SetStatus(codes.Error, err.Error())
			}
			return err
		}
	}
}
