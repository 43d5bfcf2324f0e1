// Package tracing is what the machinery needs of a tracing library: it says which work begins and
// ends, and gets the trace contexts that messages and rows carry. Package quadrilleotel connects it
// to OpenTelemetry.
//
// It promises that a service without a Tracer does no work for tracing, and passes the trace
// contexts of its events on.
package tracing

import (
	"context"

	"github.com/quadrille-go/quadrille/events"
)

// Operation is the kind of work of a span.
type Operation int

const (
	Send    Operation = iota // a message is published, until the broker has confirmed it
	Process                  // a message that came through the broker is handled in its transaction
	React                    // the same for what the service has sent itself: a deadline, an answer
	Call                     // an outside call is made
)

// Step is the work that a span is about.
type Step struct {
	Operation
	Event    events.Record // without its data; the trace context in it is the parent
	Exchange string        // for Send and Process
	Queue    string        // for Process
	Attempt  int           // 1 is the first; 0 for Send
	Batch    int           // how many events share the transaction
}

// Span is work that has begun.
type Span struct {
	TraceParent string                                // of what the work causes
	Into        func(context.Context) context.Context // the context of code that runs in the span
	End         func(error)
}

// Tracer begins spans. A nil Tracer begins none.
type Tracer struct {
	// Current returns the trace context of what is published in ctx outside of a handler.
	Current func(ctx context.Context) string
	Begin   func(s Step) Span
}

// RolledBackError is the end of a span whose transaction was rolled back because of any event of
// its batch. The events are then handled one by one.
type RolledBackError struct{ Err error }

func (e RolledBackError) Error() string { return "the batch was rolled back: " + e.Err.Error() }

func (e RolledBackError) Unwrap() error { return e.Err }
