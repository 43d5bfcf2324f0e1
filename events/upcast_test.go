package events_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/events"
)

// gauged is of the third major version: the first had a text, the second a number without a unit.
type gauged struct {
	Meter string `json:"meter"`
	Value int    `json:"value"`
	Unit  string `json:"unit"`
}

func (gauged) EventType() string { return "gauge.read" }
func (r gauged) Subject() string { return r.Meter }
func (gauged) Major() int        { return 3 }

func (gauged) Upcast(major int, data []byte) ([]byte, error) {
	s := string(data)
	switch {
	case strings.Contains(s, "bad"):
		return nil, errors.New("no number")
	case major == 1: // {"meter":"m","value":"7"}
		return []byte(strings.ReplaceAll(s, `"7"`, `7`)), nil
	default:
		return []byte(strings.TrimSuffix(s, "}") + `,"unit":"kWh"}`), nil
	}
}

func TestOlderMajorsGoThroughTheUpcasters(t *testing.T) {
	c := events.NewCatalogue(gauged{})
	id := events.NewID()
	for name, test := range map[string]struct {
		schema, data string
		want         error
	}{
		"the first":  {"urn:quadrille:gauge.read:1", `{"meter":"m","value":"7"}`, nil},
		"no schema":  {"", `{"meter":"m","value":"7"}`, nil}, // is the first
		"the second": {"urn:quadrille:gauge.read:2", `{"meter":"m","value":7}`, nil},
		"the third":  {"urn:quadrille:gauge.read:3", `{"meter":"m","value":7,"unit":"kWh"}`, nil},
		"the fourth": {"urn:quadrille:gauge.read:4", `{"meter":"m","value":7,"unit":"kWh"}`,
			events.ErrUnknownMajor},
		"none": {"urn:quadrille:gauge.read:0", `{"meter":"m","value":"7"}`,
			events.ErrUnknownMajor},
		"cannot be upcast": {"urn:quadrille:gauge.read:1", `{"meter":"m","value":"bad"}`,
			events.ErrMalformed},
		"not what it says": {"urn:quadrille:gauge.read:2", `{"meter":"m","value":"7"}`,
			events.ErrMalformed},
	} {
		e, err := c.Open(events.Record{ID: id, Type: "gauge.read", Subject: "m", DataSchema: test.schema,
			Data: []byte(test.data)})
		if !errors.Is(err, test.want) || test.want != nil && err == nil {
			t.Errorf("%s: error %v, want %v", name, err, test.want)
		}
		if test.want == nil && e.Data != (gauged{"m", 7, "kWh"}) {
			t.Errorf("%s: %+v", name, e.Data)
		}
	}
}

func TestHeadersComeBack(t *testing.T) {
	e := events.Cause(events.Event{}, "/meters", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		gauged{"m", 7, "kWh"})
	e.CausationID, e.TraceParent = events.NewID(),
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	r, err := e.Record()
	if err != nil {
		t.Fatal(err)
	}
	data, err := r.Headers()
	if err != nil {
		t.Fatal(err)
	}
	back := events.Record{ID: r.ID, Type: r.Type, Subject: r.Subject, Data: r.Data}
	if err := back.SetHeaders(data); err != nil {
		t.Fatal(err)
	}
	if got, err := events.NewCatalogue(gauged{}).Open(back); err != nil || got != e {
		t.Errorf("%+v, %v; want %+v", got, err, e)
	}
	if err := back.SetHeaders([]byte(`{`)); err == nil || !strings.Contains(err.Error(), r.ID) {
		t.Errorf("error %v, want one that names the event", err)
	}
}
