package events

import (
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// MaxSize is the largest payload in bytes that may be published. CloudEvents requires consumers to
// accept events of 64 KiB, not larger ones.
const MaxSize = 64 << 10

// The reasons why a record cannot become an event. Decoding it again does not help.
var (
	ErrMalformed    = errors.New("malformed event")
	ErrUnknownType  = errors.New("unknown event type")
	ErrUnknownMajor = errors.New("unknown major version")
	ErrTooLarge     = errors.New("event too large")
)

// Record is an event as bytes: what an outbox stores and what the wire carries.
type Record struct {
	ID            string
	Source        string
	Type          string
	Subject       string
	DataSchema    string
	CorrelationID string
	CausationID   string
	TraceParent   string
	Time          time.Time
	Sequence      int64 // its place in the outbox of its source, 0 when it has none
	Data          []byte
}

// Encode returns p as JSON. It refuses a payload that its own Validate refuses (ErrMalformed) and
// one larger than MaxSize (ErrTooLarge).
func Encode(p Payload) ([]byte, error) {
	if err := validate(p); err != nil {
		return nil, err
	}
	data, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("%w: encode %s: %v", ErrMalformed, p.EventType(), err)
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: %s of %d bytes, at most %d", ErrTooLarge, p.EventType(), len(data),
			MaxSize)
	}
	return data, nil
}

// Record returns e as bytes; the errors are those of Encode.
func (e Event) Record() (Record, error) {
	data, err := Encode(e.Data)
	if err != nil {
		return Record{}, err
	}
	return Record{
		ID: e.ID, Source: e.Source, Type: e.Data.EventType(), Subject: e.Data.Subject(),
		DataSchema: e.schema(), CorrelationID: e.CorrelationID, CausationID: e.CausationID,
		TraceParent: e.TraceParent, Time: e.Time, Data: data,
	}, nil
}

// schema is the URI of the major version of the payload's schema, "urn:shop:order.placed:1" for the
// prefix "urn:shop:".
func (e Event) schema() string {
	prefix := e.SchemaPrefix
	if prefix == "" {
		prefix = "urn:" + e.Source[strings.LastIndexByte(e.Source, '/')+1:] + ":"
	}
	return prefix + e.Data.EventType() + ":" + strconv.Itoa(major(e.Data))
}

// Catalogue is the set of event types that a program knows, each with a sample of its payload.
// It does not change once made and may be shared.
type Catalogue struct{ kinds map[string]kind }

type kind struct {
	sample Payload
	typ    reflect.Type
}

// NewCatalogue returns the catalogue of the types of samples. A sample should be a valid value: the
// command line publishes it when it is given no data. It panics when two samples share a type name,
// which is a mistake in the program.
func NewCatalogue(samples ...Payload) Catalogue {
	c := Catalogue{kinds: make(map[string]kind, len(samples))}
	for _, s := range samples {
		typ := reflect.TypeOf(s)
		if known, ok := c.kinds[s.EventType()]; ok && known.typ != typ {
			panic(fmt.Sprintf("events: %s is both %s and %s", s.EventType(), known.typ, typ))
		}
		c.kinds[s.EventType()] = kind{sample: s, typ: typ}
	}
	return c
}

// Types returns the names of the known types, sorted.
func (c Catalogue) Types() []string {
	types := make([]string, 0, len(c.kinds))
	for t := range c.kinds {
		types = append(types, t)
	}
	sort.Strings(types)
	return types
}

// Sample returns the sample of a type.
func (c Catalogue) Sample(eventType string) (Payload, bool) {
	k, ok := c.kinds[eventType]
	return k.sample, ok
}

// With returns a catalogue that knows the types of both.
func (c Catalogue) With(samples ...Payload) Catalogue {
	all := make([]Payload, 0, len(c.kinds)+len(samples))
	for _, k := range c.kinds {
		all = append(all, k.sample)
	}
	return NewCatalogue(append(all, samples...)...)
}

// Decode reads the payload of one type. Its errors are ErrUnknownType and ErrMalformed.
func (c Catalogue) Decode(eventType string, data []byte) (Payload, error) {
	k, ok := c.kinds[eventType]
	if !ok {
		return nil, fmt.Errorf("%w %.255q", ErrUnknownType, eventType)
	}
	value := reflect.New(k.typ)
	if err := json.Unmarshal(data, value.Interface()); err != nil {
		return nil, fmt.Errorf("%w: decode %s: %v", ErrMalformed, eventType, err)
	}
	p := value.Elem().Interface().(Payload)
	if err := validate(p); err != nil {
		return nil, err
	}
	return p, nil
}

// Payload reads the payload of a record; one of an older major version goes through its Upcaster.
// Its errors are ErrMalformed, ErrUnknownType and ErrUnknownMajor.
func (c Catalogue) Payload(r Record) (Payload, error) {
	if k, ok := c.kinds[r.Type]; ok {
		published, err := majorOf(r.Type, r.DataSchema)
		if err != nil {
			return nil, err
		}
		if r.Data, err = upcast(k.sample, published, r.Data); err != nil {
			return nil, err
		}
	}
	return c.Decode(r.Type, r.Data)
}

// Open turns a record into an event. Its errors are those of Payload.
func (c Catalogue) Open(r Record) (Event, error) {
	id, err := ParseID(r.ID)
	if err != nil {
		return Event{}, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	p, err := c.Payload(r)
	if err != nil {
		return Event{}, err
	}
	if r.Subject != "" && r.Subject != p.Subject() {
		return Event{}, fmt.Errorf("%w: the envelope of %s has the subject %.64q, its payload %.64q",
			ErrMalformed, r.Type,
			r.Subject, p.Subject())
	}
	e := Event{
		ID: id, Source: r.Source, CorrelationID: r.CorrelationID, CausationID: r.CausationID,
		TraceParent: r.TraceParent, Time: r.Time, Data: p,
	}
	if e.CorrelationID == "" {
		e.CorrelationID = id
	}
	return e, nil
}

// majorOf reads the major version in a schema of the form that Record writes, with any prefix.
// Any other schema is major 1: other producers name none, or a document of their own.
func majorOf(eventType, schema string) (int, error) {
	last := max(0, strings.LastIndexByte(schema, ':'))
	if !strings.HasPrefix(schema, "urn:") || !strings.HasSuffix(schema[:last], ":"+eventType) {
		return 1, nil
	}
	n, err := strconv.Atoi(schema[last+1:])
	if err != nil {
		return 0, fmt.Errorf("%w: dataschema %.128q ends in no version", ErrMalformed, schema)
	}
	return n, nil
}

func major(p Payload) int {
	if v, ok := p.(interface{ Major() int }); ok {
		return v.Major()
	}
	return 1
}

func validate(p Payload) error {
	if v, ok := p.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrMalformed, p.EventType(), err)
		}
	}
	if p.Subject() == "" {
		return fmt.Errorf("%w: %s has no subject", ErrMalformed, p.EventType())
	}
	return nil
}
