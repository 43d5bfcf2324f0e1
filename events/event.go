package events

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Payload is the data of an event. Implementations are plain structs whose exported fields are
// the JSON on the wire.
//
// A payload may also have a method Validate() error, which is run when it is emitted and when it is
// decoded, and a method Major() int, the major version of its schema (1 when absent). One that can
// read older majors is an Upcaster.
type Payload interface {
	// EventType is the name of the fact in the past tense, such as "order.placed". It is also the
	// routing key. It must not depend on the value.
	EventType() string
	// Subject is the id of the aggregate that the fact is about; order is kept per subject.
	Subject() string
}

// Event is a payload in its envelope. The field names are those of CloudEvents 1.0 and of its
// Correlation extension.
type Event struct {
	ID            string    // a UUID, unique per source; empty for a command, which never travels
	Source        string    // of the publishing service: "/orders"
	CorrelationID string    // the whole business flow
	CausationID   string    // the id of the event that directly caused this one, empty for a root
	TraceParent   string    // W3C Trace Context: the span that published it, or that of its cause
	SchemaPrefix  string    // of the dataschema: "urn:shop:"; empty: made of the source, "urn:orders:"
	Time          time.Time // of its publication
	Data          Payload   // decoded once
}

// Of is an event whose payload type is known.
type Of[T Payload] struct {
	Event
	Data T
}

// As returns e with its payload typed; ok is false when the payload is of another type.
func As[T Payload](e Event) (of Of[T], ok bool) {
	data, ok := e.Data.(T)
	return Of[T]{Event: e, Data: data}, ok
}

// Command makes the event that carries a command or a deadline to reactions: it has no id, since it
// is not a fact that anybody could have been caused by.
func Command(p Payload, now time.Time) Event {
	return Event{CorrelationID: p.Subject(), Time: now.UTC(), Data: p}
}

// NewID returns a UUIDv7: its order in time keeps the indexes on it dense.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// ParseID returns id in its canonical form: a UUID of any version, 36 characters, lower case.
func ParseID(id string) (string, error) {
	if len(id) != 36 {
		return "", fmt.Errorf("id %.64q is not a UUID of 36 characters", id)
	}
	u, err := uuid.Parse(id)
	if err != nil {
		return "", fmt.Errorf("id %.64q is not a UUID", id)
	}
	return u.String(), nil
}

// Cause stamps an event that a reaction to cause has emitted: a new id, and the correlation and
// trace of its cause. An event without a cause, or caused by a command, is a root.
func Cause(cause Event, source string, now time.Time, p Payload) Event {
	e := Event{
		ID: NewID(), Source: source, CorrelationID: cause.CorrelationID, CausationID: cause.ID,
		TraceParent: traceFrom(cause.TraceParent), Time: now.UTC(), Data: p,
	}
	if e.CorrelationID == "" {
		e.CorrelationID = e.ID
	}
	return e
}
