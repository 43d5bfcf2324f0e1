package engine

import (
	"context"
	"slices"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/tracing"
	"github.com/quadrille-go/quadrille/topology"
)

// spans are those of the events that one transaction handles. They end with it, so that they show
// the time of the commit, and its failure.
type spans struct {
	batch int
	of    map[string]tracing.Span // by the key of the event
}

type spansKey struct{}

// withSpans returns a context in which the events of a transaction get spans.
func (t *transactor) withSpans(ctx context.Context) (context.Context, *spans) {
	if t.tracer == nil {
		return ctx, nil
	}
	s := &spans{of: map[string]tracing.Span{}}
	return context.WithValue(ctx, spansKey{}, s), s
}

// end ends the spans with the outcome of the transaction.
func (s *spans) end(err error) {
	if s == nil {
		return
	}
	if err != nil && s.batch > 1 {
		err = tracing.RolledBackError{Err: err}
	}
	for _, span := range s.of {
		span.End(err)
	}
}

// into returns the context of the code that handles an event.
func into(ctx context.Context, e events.Event) context.Context {
	if s, _ := ctx.Value(spansKey{}).(*spans); s != nil {
		if span, ok := s.of[keyOf(e)]; ok {
			return span.Into(ctx)
		}
	}
	return ctx
}

// begin begins a span for each event of a batch. It returns the events with the trace contexts of
// their spans, which are those of their effects. Exchanges are those through which the events came,
// empty for what the service has sent itself.
func (t *transactor) begin(ctx context.Context, batch []events.Event,
	exchange func(i int) string) []events.Event {
	s, _ := ctx.Value(spansKey{}).(*spans)
	if s == nil {
		return batch
	}
	scope, _ := ctx.Value(scopeKey{}).(*scope)
	batch = slices.Clone(batch)
	s.batch = len(batch)
	for i, e := range batch {
		step := tracing.Step{Operation: tracing.React, Event: envelopeOf(e), Exchange: exchange(i),
			Attempt: scope.attempt(keyOf(e)), Batch: len(batch)}
		if step.Exchange != "" {
			step.Operation, step.Queue = tracing.Process, topology.QueueOf(t.handlers.service.Name)
		}
		span := t.tracer.Begin(step)
		batch[i].TraceParent, s.of[keyOf(e)] = span.TraceParent, span
	}
	return batch
}

// beginCall begins the span of an outside call, for a request or for an event of another service.
func (t *transactor) beginCall(p inbox.Pending, e events.Event) tracing.Span {
	step := tracing.Step{Operation: tracing.Call, Event: envelopeOf(e), Attempt: p.Attempts + 1,
		Batch: 1}
	if p.Exchange != "" {
		step.Operation, step.Exchange = tracing.Process, p.Exchange
		step.Queue = topology.QueueOf(t.handlers.service.Name)
	}
	return t.tracer.Begin(step)
}

// markParked shows a message that cannot be handled in the trace to which it claims to belong.
func (t *transactor) markParked(it item, why error) {
	if t.tracer == nil {
		return
	}
	record := it.record
	record.Data = nil
	t.tracer.Begin(tracing.Step{Operation: tracing.Process, Event: record,
		Exchange: it.delivery.Exchange, Queue: topology.QueueOf(t.handlers.service.Name), Attempt: 1,
		Batch: 1}).End(why)
}

// inCurrentTrace gives what has no trace context, such as a command, that of the span in ctx.
func (t *transactor) inCurrentTrace(ctx context.Context, results []Result) []Result {
	if t.tracer == nil || !slices.ContainsFunc(results, func(r Result) bool {
		return r.Cause.TraceParent == "" && !r.Effects.empty()
	}) {
		return results
	}
	current := t.tracer.Current(ctx)
	results = slices.Clone(results)
	for i := range results {
		if results[i].Cause.TraceParent == "" {
			results[i].Cause.TraceParent = current
		}
	}
	return results
}

// envelopeOf returns an event without its data.
func envelopeOf(e events.Event) events.Record {
	return events.Record{ID: e.ID, Source: e.Source, Type: e.Data.EventType(),
		Subject: e.Data.Subject(), CorrelationID: e.CorrelationID, CausationID: e.CausationID,
		TraceParent: e.TraceParent, Time: e.Time}
}
