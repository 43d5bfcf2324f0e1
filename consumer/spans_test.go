package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/tracing"
	"github.com/quadrille-go/quadrille/internal/tracing/tracingtest"
	"github.com/quadrille-go/quadrille/topology"
)

const traceOfPublication = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// Each event that a transaction handles has a span, which ends with the transaction. If a batch
// fails, its spans say that it was rolled back, and each event then has a span of its own, of which
// only that of the failed event is an error. The code of a handler runs in the span of its event.
func TestSpansEndWithTheTransaction(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var recorder tracingtest.Recorder
	c := w.Consumer(consumertest.Service, nil, consumer.Handle(func(ctx context.Context, _ *sqlx.Tx,
		e events.Of[consumertest.Noted]) error {
		if in := tracingtest.In(ctx); in == "" || in != e.TraceParent {
			t.Errorf("the handler of %s runs in the span %q", e.TraceParent, in)
		}
		if e.Data.Text == "bad" {
			return consumer.Permanent(errors.New("no"))
		}
		return nil
	}))
	c.Tracer, c.Lanes = recorder.Tracer(), 1
	const good = 9
	var messages []rabbit.Message
	for i := range good + 1 {
		noted := consumertest.Noted{Order: fmt.Sprint(i)}
		if i == good/2 {
			noted.Text = "bad"
		}
		e := consumertest.Event(consumertest.Shop, noted)
		e.TraceParent = traceOfPublication
		messages = append(messages, w.Message(e))
	}
	w.Publish(messages...)
	stop := w.Start(c)
	w.Becomes(1, parkedCount)
	w.Becomes(good+1, inboxCount)
	stop()
	handled, failed, rolledBack := 0, 0, 0
	for _, s := range recorder.Spans() {
		together := errors.As(s.Err, new(tracing.RolledBackError))
		switch {
		case s.Err == nil:
			handled++
		case together && s.Batch > 1:
			rolledBack++
		case !together:
			failed++
		}
		if !s.Ended || s.Operation != tracing.Process || s.Event.TraceParent != traceOfPublication ||
			s.Exchange != topology.ExchangeOf(consumertest.Shop) || s.Attempt != 1 ||
			s.Queue != topology.QueueOf(consumertest.Service) {
			t.Errorf("span %+v", s)
		}
	}
	if handled != good || failed != 1 || rolledBack == 1 {
		t.Errorf("%d spans of success, %d of failures, %d of batches that were rolled back", handled,
			failed, rolledBack)
	}
}

// What follows from an event is in its span: what is published, and the call that is requested, its
// answer and what is published because of that.
func TestEffectsAreInTheSpanOfTheirCause(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var recorder tracingtest.Recorder
	c := w.Consumer(consumertest.Service, nil, inquirer(inquire),
		consumer.Call(func(ctx context.Context, e events.Of[consumertest.Inquire]) (events.Payload,
			error) {
			if in := tracingtest.In(ctx); in == "" || in != e.TraceParent {
				t.Errorf("the call for %s is made in the span %q", e.TraceParent, in)
			}
			return consumertest.Inquired{Order: e.Data.Order}, nil
		}))
	c.Tracer = recorder.Tracer()
	stop := w.Start(c)
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
	stop()
	spans := recorder.Spans()
	if len(spans) != 3 {
		t.Fatalf("%d spans: %+v", len(spans), spans)
	}
	for i, want := range []tracing.Operation{tracing.Process, tracing.Call, tracing.React} {
		s := spans[i]
		if s.Operation != want || s.Err != nil || !s.Ended ||
			i > 0 && s.Event.TraceParent != spans[i-1].TraceParent {
			t.Errorf("span %d is %+v, after %s", i, s, spans[max(0, i-1)].TraceParent)
		}
	}
	if n := w.Int(`SELECT count(*) FROM outbox WHERE headers->>'traceparent' = $1`,
		spans[2].TraceParent); n != 1 {
		t.Errorf("%d rows have the trace context of the reaction to the answer", n)
	}
}

// What is published outside of a handler is in the current span, and a message that is no event has
// a span with the reason.
func TestSpansWithoutAHandler(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var recorder tracingtest.Recorder
	c := w.Consumer(consumertest.Service, nil, note("bank"))
	c.Tracer = recorder.Tracer()
	stop := w.Start(c)
	m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o"}))
	m.Body = []byte("{")
	w.Publish(m)
	w.Becomes(1, parkedCount)
	stop()
	if spans := recorder.Spans(); len(spans) != 1 || !errors.Is(spans[0].Err, events.ErrMalformed) {
		t.Errorf("the spans of a malformed message are %+v", spans)
	}
	err := c.Tx(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
		return c.Execute(ctx, tx, consumer.Publish(consumertest.Answered{Order: "o"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := w.Int(`SELECT count(*) FROM outbox WHERE headers->>'traceparent' = $1`,
		tracingtest.Current); n != 1 {
		t.Errorf("%d rows have the trace context of the current span", n)
	}
}
