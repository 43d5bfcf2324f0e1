// Package quadrilleotel traces a service with OpenTelemetry: a span for each event that is
// published, for each event, deadline and answer that is handled, and for each outside call.
//
// It promises one trace for what follows from one cause, in all services, also through retries,
// redrives and replays: a message carries the trace context of its publication (traceparent of W3C
// Trace Context), and what waits in a table carries that of its cause. The spans have the
// attributes of OpenTelemetry's semantic conventions for RabbitMQ, version 1.43. It exports
// nothing: hand it the provider of your program.
package quadrilleotel

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/tracing"
)

const scope = "github.com/quadrille-go/quadrille/quadrilleotel"

// Tracer returns the Tracer of a service, for quadrille.Config, whose spans the provider makes.
func Tracer(provider trace.TracerProvider) *quadrille.Tracer {
	tracer := provider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))
	return &quadrille.Tracer{
		Current: func(ctx context.Context) string { return current(ctx, tracer) },
		Begin:   func(s tracing.Step) tracing.Span { return begin(tracer, s) },
	}
}

// TraceParent returns the trace context of the span in ctx, for an event that is made from a
// request; empty if there is none.
func TraceParent(ctx context.Context) string {
	return traceParentOf(trace.SpanContextFromContext(ctx))
}

func traceParentOf(c trace.SpanContext) string {
	if !c.IsValid() {
		return ""
	}
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String()
}

// spanContextOf is the reverse of traceParentOf. An invalid trace context is none.
func spanContextOf(traceParent string) trace.SpanContext {
	if !events.ValidTrace(traceParent) {
		return trace.SpanContext{}
	}
	// These are hexadecimal digits.
	traceID, _ := trace.TraceIDFromHex(traceParent[3:35])
	spanID, _ := trace.SpanIDFromHex(traceParent[36:52])
	flags, _ := strconv.ParseUint(traceParent[53:], 16, 8)
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID,
		TraceFlags: trace.TraceFlags(flags), Remote: true})
}

// current is TraceParent, but begins a trace where there is none. Its first span must exist: rows
// that are published again refer to it.
func current(ctx context.Context, tracer trace.Tracer) string {
	if t := TraceParent(ctx); t != "" {
		return t
	}
	_, span := tracer.Start(ctx, "transaction")
	defer span.End()
	return traceParentOf(span.SpanContext())
}

func begin(tracer trace.Tracer, s tracing.Step) tracing.Span {
	remote := spanContextOf(s.Event.TraceParent)
	parent := trace.ContextWithRemoteSpanContext(context.Background(), remote)
	name, kind, attributes := describe(s)
	options := []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(attributes...)}
	if s.Operation == tracing.Process && remote.IsValid() {
		// The conventions want a link to the publication even where that is the parent.
		options = append(options, trace.WithLinks(trace.Link{SpanContext: remote}))
	}
	ctx, span := tracer.Start(parent, name, options...)
	return tracing.Span{
		TraceParent: TraceParent(ctx),
		Into: func(ctx context.Context) context.Context {
			return trace.ContextWithSpan(ctx, span)
		},
		End: func(err error) { end(span, err) },
	}
}

func end(span trace.Span, err error) {
	defer span.End()
	switch together, ok := errors.AsType[tracing.RolledBackError](err); {
	case ok:
		// One event of the batch is to blame, and it is not known which: each has an attempt of its own
		// next.
		span.SetAttributes(attribute.String("quadrille.rolled_back",
			shortened(together.Err.Error())))
	case err != nil:
		span.SetStatus(codes.Error, shortened(err.Error()))
		span.SetAttributes(semconv.ErrorTypeOther)
	}
}

// The bounds of texts in a span, in bytes.
const (
	maxError     = 2000 // that of a panic has its stack
	maxAttribute = 255
)

func shortened(text string) string { return valid(text, maxError) }

// valid makes a text valid. A message that is no event may contain any bytes, and an exporter loses
// a whole batch of spans because of invalid UTF-8 in one of them.
func valid(text string, bound int) string {
	return strings.ToValidUTF8(text[:min(len(text), bound)], "")
}

// maxAttributes is how many attributes a span has at most.
const maxAttributes = 14

// describe returns the name, the kind and the attributes of a span.
func describe(s tracing.Step) (name string, kind trace.SpanKind, list []attribute.KeyValue) {
	e := s.Event
	for _, text := range []*string{&e.ID, &e.Source, &e.Type, &e.Subject, &e.CorrelationID} {
		*text = valid(*text, maxAttribute)
	}
	list = append(make([]attribute.KeyValue, 0, maxAttributes),
		semconv.CloudEventsEventType(e.Type), semconv.CloudEventsEventSubject(e.Subject))
	if e.ID != "" {
		list = append(list, semconv.CloudEventsEventID(e.ID), semconv.CloudEventsEventSource(e.Source))
	}
	if s.Attempt > 0 {
		list = append(list, attribute.Int("quadrille.attempt", s.Attempt),
			attribute.Int("quadrille.batch_size", s.Batch))
	}
	destination := s.Exchange + ":" + e.Type
	operation, operationType := "publish", semconv.MessagingOperationTypeSend
	switch s.Operation {
	case tracing.React:
		return "react " + e.Type, trace.SpanKindInternal, list
	case tracing.Call:
		return "call " + e.Type, trace.SpanKindInternal, list
	case tracing.Process:
		kind, destination = trace.SpanKindConsumer, destination+":"+s.Queue
		operation, operationType = "process", semconv.MessagingOperationTypeProcess
	default:
		kind = trace.SpanKindProducer
	}
	return operation + " " + destination, kind, append(list, semconv.MessagingSystemRabbitMQ,
		semconv.MessagingOperationName(operation), operationType,
		semconv.MessagingDestinationName(destination),
		semconv.MessagingRabbitMQDestinationRoutingKey(e.Type), semconv.MessagingMessageID(e.ID),
		semconv.MessagingMessageConversationID(e.CorrelationID))
}
