// Package tracingtest records what the machinery tells a tracing library.
package tracingtest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/quadrille-go/quadrille/internal/tracing"
)

// Span is a span that has begun.
type Span struct {
	tracing.Step
	TraceParent string
	Ended       bool
	Err         error // with which it has ended
}

// Recorder records spans. It is safe for concurrent use.
type Recorder struct {
	mu    sync.Mutex
	spans []Span
}

// TraceID is the trace of all spans.
const TraceID = "0af7651916cd43dd8448eb211c80319c"

// Current is the trace context of what is published outside of a span.
const Current = "00-" + TraceID + "-ffffffffffffffff-01"

type key struct{}

// In returns the trace context of the span in whose context code runs; empty if there is none.
func In(ctx context.Context) string {
	t, _ := ctx.Value(key{}).(string)
	return t
}

// Tracer returns the tracer whose spans are recorded.
func (r *Recorder) Tracer() *tracing.Tracer {
	return &tracing.Tracer{
		Current: func(context.Context) string { return Current },
		Begin:   r.begin,
	}
}

func (r *Recorder) begin(s tracing.Step) tracing.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.spans)
	traceParent := fmt.Sprintf("00-%s-%016x-01", TraceID, n+1)
	r.spans = append(r.spans, Span{Step: s, TraceParent: traceParent})
	return tracing.Span{
		TraceParent: traceParent,
		Into: func(ctx context.Context) context.Context {
			return context.WithValue(ctx, key{}, traceParent)
		},
		End: func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.spans[n].Ended {
				panic("a span ends twice: " + r.spans[n].Event.Type)
			}
			r.spans[n].Ended, r.spans[n].Err = true, err
		},
	}
}

// Spans returns the spans that have begun, in their order.
func (r *Recorder) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}
