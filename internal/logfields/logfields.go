// Package logfields has the fields that each line of the log has which is about one event: its ids,
// so that the id of an order finds the lines of all services about it.
package logfields

import (
	"bytes"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/release"
)

// Of is the event that a line is about, for EmbedObject. Its data is not logged.
type Of events.Record

// MarshalZerologObject implements zerolog.LogObjectMarshaler.
func (r Of) MarshalZerologObject(line *zerolog.Event) {
	for _, field := range []struct{ name, value string }{
		{"event_id", r.ID}, {"event_type", r.Type}, {"subject", r.Subject},
		{"correlation_id", r.CorrelationID}, {"causation_id", r.CausationID},
		{"trace_id", traceID(r.TraceParent)},
	} {
		if field.value != "" {
			line.Str(field.name, field.value)
		}
	}
}

// traceID returns the id of the trace, under which a collector finds it.
func traceID(traceParent string) string {
	if !events.ValidTrace(traceParent) {
		return ""
	}
	return traceParent[3:35]
}

// Named returns a logger whose lines name the service and its release. Names that the logger has
// already are kept.
func Named(log zerolog.Logger, service string) zerolog.Logger {
	var line bytes.Buffer
	probe := log.Output(&line).Level(zerolog.TraceLevel).Sample(nil)
	probe.Log().Send()
	context := log.With()
	if !bytes.Contains(line.Bytes(), []byte(`"service":`)) {
		context = context.Str("service", service)
	}
	if !bytes.Contains(line.Bytes(), []byte(`"release":`)) {
		context = context.Str("release", release.Name())
	}
	return context.Logger()
}
