package outbox_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/tracing"
	"github.com/quadrille-go/quadrille/internal/tracing/tracingtest"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

const traceOfCause = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// caused returns an event in the trace of its cause.
func caused(p events.Payload) events.Event {
	e := outboxtest.Event(p)
	e.TraceParent = traceOfCause
	return e
}

// Each publication has a span of its own below the cause of the event, which ends with the answer
// of the broker: the first one, that of a row that was held, and that of a replay. The message
// carries the trace context of its span, and the row keeps that of the cause.
func TestEachPublicationHasASpan(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	var recorder tracingtest.Recorder
	r := s.Relay(s.Out)
	r.Mandatory, r.Tracer = outboxtest.IsOrphan, recorder.Tracer()
	e := caused(outboxtest.Orphan{On: "a"})
	s.Append(e)
	stop := s.Run(r)
	s.WaitFor("the event is held", func() bool { return len(s.HeldIDs("true")) == 1 })
	s.Bind(s.Queue, "orphan.born")
	last := func() string {
		spans := recorder.Spans()
		return spans[len(spans)-1].TraceParent
	}
	if got := s.Receive(s.Queue, 1)[0].Headers["traceparent"]; got != last() {
		t.Errorf("the message has the trace context %v, want that of its span, %s", got, last())
	}
	s.AwaitSettled()
	if _, err := s.Out.ReplayIDs(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
	if got := s.Receive(s.Queue, 1)[0].Headers["traceparent"]; got != last() {
		t.Errorf("the replay has the trace context %v, want that of its span, %s", got, last())
	}
	s.WaitFor("the replay is confirmed", func() bool {
		spans := recorder.Spans()
		return spans[len(spans)-1].Ended
	})
	stop()
	spans := recorder.Spans()
	if n := len(spans); n < 3 || spans[0].Err == nil || spans[n-2].Err != nil ||
		spans[n-1].Err != nil || !strings.Contains(fmt.Sprint(spans[0].Err), "no queue is bound") {
		t.Errorf("the spans are %+v", spans)
	}
	for _, span := range spans {
		if span.Event.TraceParent != traceOfCause || span.Operation != tracing.Send || !span.Ended ||
			span.Exchange != outboxtest.Exchange || span.Event.ID != e.ID {
			t.Errorf("span %+v", span)
		}
	}
	if n := s.Count(`SELECT count(*) FROM outbox WHERE headers->>'traceparent' = $1`,
		traceOfCause); n != 1 {
		t.Errorf("%d rows keep the trace context of their cause", n)
	}
}

// When the session with the broker ends, the spans of what was not confirmed end with the reason,
// and the next publications have spans of their own.
func TestSpansEndWithTheSession(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	var recorder tracingtest.Recorder
	r := s.Relay(s.Out)
	r.URL, r.Tracer = proxy.URL, recorder.Tracer()
	stop := s.Run(r)
	s.Append(caused(outboxtest.Note{On: "a", N: 1}))
	s.Receive(s.Queue, 1)
	s.WaitFor("the first span has ended", func() bool { return recorder.Spans()[0].Ended })
	proxy.Hold(quadrilletest.ToServer)
	e := caused(outboxtest.Note{On: "a", N: 2})
	s.Append(e)
	s.WaitFor("the second event is published", func() bool { return len(recorder.Spans()) == 2 })
	proxy.Cut()
	proxy.Release()
	s.Await(s.Queue, []string{e.ID})
	s.WaitFor("it is confirmed", func() bool { return r.Stats().Published == 2 })
	stop()
	for i, span := range recorder.Spans() {
		if !span.Ended || (i == 0 && span.Err != nil) {
			t.Errorf("span %d: %+v", i, span)
		}
	}
}
