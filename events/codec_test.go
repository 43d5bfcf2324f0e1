package events_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/quadrille-go/quadrille/events"
)

// reading is the payload of these tests.
type reading struct {
	Meter string   `json:"meter"`
	Value int64    `json:"value"`
	Note  string   `json:"note,omitempty"`
	Tags  []string `json:"tags,omitempty"`
}

func (reading) EventType() string { return "meter.read" }
func (r reading) Subject() string { return r.Meter }

var errNegative = errors.New("value is negative")

func (r reading) Validate() error {
	if r.Value < 0 {
		return errNegative
	}
	return nil
}

// second is of the second major version.
type second struct {
	Meter string `json:"meter"`
}

func (second) EventType() string { return "meter.moved" }
func (s second) Subject() string { return s.Meter }
func (second) Major() int        { return 2 }

func catalogue() events.Catalogue {
	return events.NewCatalogue(reading{Meter: "m"}, second{Meter: "m"})
}

func TestDecodeRefusesWhatOthersReadInSeveralWays(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"duplicate key":         `{"meter":"m","value":1,"value":2}`,
		"duplicate unknown":     `{"meter":"m","x":1,"x":2}`,
		"duplicate by escape":   `{"meter":"m","value":1,"valu\u0065":2}`,
		"trailing data":         `{"meter":"m"}{}`,
		"trailing garbage":      `{"meter":"m"}x`,
		"invalid UTF-8":         "{\"meter\":\"m\xff\"}",
		"lone surrogate":        `{"meter":"\ud800"}`,
		"exponent":              `{"meter":"m","value":1e2}`,
		"fraction":              `{"meter":"m","value":1.0}`,
		"2^63":                  `{"meter":"m","value":9223372036854775808}`,
		"text for a number":     `{"meter":"m","value":"1"}`,
		"number for a text":     `{"meter":1}`,
		"case of a required":    `{"Meter":"m"}`,
		"no subject":            `{"value":1}`,
		"null":                  `null`,
		"array":                 `[]`,
		"nothing":               ``,
		"NaN":                   `{"meter":"m","value":NaN}`,
		"comment":               `{"meter":"m"/**/}`,
		"byte order mark":       "\ufeff" + `{"meter":"m"}`,
		"refused by Validate":   `{"meter":"m","value":-1}`,
		"element of wrong type": `{"meter":"m","tags":[1]}`,
	} {
		if p, err := catalogue().Decode("meter.read", []byte(data)); !errors.Is(err,
			events.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestDecodeTolerates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		data string
		want reading
	}{
		"unknown field": {`{"meter":"m","later":{"a":[1]}}`, reading{Meter: "m"}},
		"other case":    {`{"meter":"m","VALUE":7}`, reading{Meter: "m"}},
		"largest number": {`{"meter":"m","value":9223372036854775807}`,
			reading{Meter: "m", Value: 1<<63 - 1}},
		"space":      {" {\n\"meter\" : \"m\"\t}\n", reading{Meter: "m"}},
		"null field": {`{"meter":"m","value":null}`, reading{Meter: "m"}},
	} {
		if p, err := catalogue().Decode("meter.read", []byte(c.data)); err != nil ||
			!reflect.DeepEqual(p, c.want) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	fits := reading{Meter: "m", Note: strings.Repeat("x",
		events.MaxSize-len(`{"meter":"m","value":0,"note":""}`))}
	if data, err := events.Encode(fits); err != nil || len(data) != events.MaxSize {
		t.Errorf("%d bytes: %v", len(data), err)
	}
	fits.Note += "x"
	for name, c := range map[string]struct {
		p    events.Payload
		want error
	}{
		"one byte too large": {fits, events.ErrTooLarge},
		"invalid":            {reading{Meter: "m", Value: -1}, events.ErrMalformed},
		"why":                {reading{Meter: "m", Value: -1}, errNegative},
		"no subject":         {reading{}, events.ErrMalformed},
		"invalid UTF-8":      {reading{Meter: "\xff"}, events.ErrMalformed},
	} {
		if _, err := events.Encode(c.p); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		want := reading{
			Meter: rapid.StringN(1, 20, -1).Draw(rt, "meter"), Value: rapid.Int64Min(0).Draw(rt, "value"),
			Note: rapid.String().Draw(rt, "note"), Tags: rapid.SliceOfN(rapid.String(), 1, 3).Draw(rt,
				"tags"),
		}
		data, err := events.Encode(want)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := catalogue().Decode("meter.read", data)
		if err != nil || !reflect.DeepEqual(got, want) {
			rt.Fatalf("%+v, %v; want %+v", got, err, want)
		}
	})
}

const id = "0190a0e0-0000-7000-8000-0000000000ff"

func TestOpenJudgesTheEnvelope(t *testing.T) {
	t.Parallel()
	plain := events.Record{ID: id, Type: "meter.read", Subject: "m", Data: []byte(`{"meter":"m"}`)}
	for name, c := range map[string]struct {
		change func(r *events.Record)
		want   error
	}{
		"plain":      {func(*events.Record) {}, nil},
		"no subject": {func(r *events.Record) { r.Subject = "" }, nil},
		"its own major": {func(r *events.Record) { r.DataSchema = "urn:quadrille:meter.read:1" },
			nil},
		"another's schema": {func(
			r *events.Record) {
			r.DataSchema = "https://example.com/schema.json"
		}, nil},
		"a later major": {func(r *events.Record) { r.DataSchema = "urn:quadrille:meter.read:2" },
			events.ErrUnknownMajor},
		"a later major under another prefix": {func(r *events.Record) {
			r.DataSchema = "urn:meters:public:meter.read:2"
		}, events.ErrUnknownMajor},
		"its own major under another prefix": {func(r *events.Record) {
			r.DataSchema = "urn:meters:meter.read:1"
		}, nil},
		"another's URN":  {func(r *events.Record) { r.DataSchema = "urn:uuid:" + id }, nil},
		"another's name": {func(r *events.Record) { r.DataSchema = "urn:acme:schema:v7" }, nil},
		"a URN alone":    {func(r *events.Record) { r.DataSchema = "urn:" }, nil},
		"a major of garbage": {func(r *events.Record) { r.DataSchema = "urn:quadrille:meter.read:x" },
			events.ErrMalformed},
		"an earlier major": {func(r *events.Record) {
			r.Type, r.DataSchema = "meter.moved",
				"urn:quadrille:meter.moved:1"
		}, events.ErrUnknownMajor},
		"no schema, major 2": {func(r *events.Record) { r.Type = "meter.moved" },
			events.ErrUnknownMajor},
		"unknown type": {func(r *events.Record) { r.Type = "meter.sold" },
			events.ErrUnknownType},
		"no id":                 {func(r *events.Record) { r.ID = "" }, events.ErrMalformed},
		"an id that is no UUID": {func(r *events.Record) { r.ID = "7" }, events.ErrMalformed},
		"a UUID in braces":      {func(r *events.Record) { r.ID = "{" + id + "}" }, events.ErrMalformed},
		"another subject":       {func(r *events.Record) { r.Subject = "n" }, events.ErrMalformed},
		"an unknown later major": {func(r *events.Record) {
			r.Data, r.DataSchema = []byte(`7`),
				"urn:quadrille:meter.read:9"
		}, events.ErrUnknownMajor},
	} {
		r := plain
		c.change(&r)
		e, err := catalogue().Open(r)
		if c.want == nil && (err != nil || e.CorrelationID != id || e.Data.Subject() != "m") ||
			c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	upper := plain
	upper.ID = strings.ToUpper(id)
	if e, err := catalogue().Open(upper); err != nil || e.ID != id {
		t.Errorf("an id has two spellings: %s, %v", e.ID, err)
	}
}

func TestCatalogueKnowsItsTypes(t *testing.T) {
	t.Parallel()
	if got := fmt.Sprint(catalogue().Types()); got != "[meter.moved meter.read]" {
		t.Errorf("types %s", got)
	}
	if s, ok := catalogue().Sample("meter.moved"); !ok || s != (second{Meter: "m"}) {
		t.Errorf("sample %v", s)
	}
	if _, ok := catalogue().Sample("other"); ok {
		t.Error("a sample of an unknown type")
	}
	defer func() {
		if recover() == nil {
			t.Error("two types share a name")
		}
	}()
	catalogue().With(impostor{})
}

// impostor takes the name of another type.
type impostor struct{ reading }

func TestCauseContinuesTheFlow(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("CET", 3600))
	root := events.Cause(events.Event{}, "/a", now, reading{Meter: "m"})
	if root.CorrelationID != root.ID || root.CausationID != "" ||
		!events.ValidTrace(root.TraceParent) || root.Time.Location() != time.UTC {
		t.Errorf("root %+v", root)
	}
	child := events.Cause(root, "/b", now, reading{Meter: "m"})
	if child.ID == root.ID || child.CorrelationID != root.ID || child.CausationID != root.ID ||
		child.Source != "/b" {
		t.Errorf("child %+v of %+v", child, root)
	}
	if child.TraceParent != root.TraceParent {
		t.Errorf("trace %s of %s", child.TraceParent, root.TraceParent)
	}
	for _, invalid := range []string{"", "00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-" + strings.Repeat("0", 16) + "-01", "junk"} {
		e := events.Cause(events.Event{TraceParent: invalid}, "/a", now, reading{Meter: "m"})
		if e.TraceParent == invalid || !events.ValidTrace(e.TraceParent) {
			t.Errorf("the trace %q of a cause became %q", invalid, e.TraceParent)
		}
	}
	command := events.Command(reading{Meter: "m"}, now)
	if e := events.Cause(command, "/a", now, reading{Meter: "m"}); e.CorrelationID != "m" ||
		e.CausationID != "" {
		t.Errorf("caused by a command: %+v", e)
	}
	if of, ok := events.As[reading](child); !ok || of.Data.Meter != "m" || of.ID != child.ID {
		t.Errorf("typed %+v", of)
	}
	if _, ok := events.As[second](child); ok {
		t.Error("typed as another type")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"meter":"m","value":1,"tags":["a"]}`))
	f.Add([]byte(`{"meter":"\ud83d\ude00","x":1e400}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := catalogue().Decode("meter.read", data)
		if err != nil {
			if !errors.Is(err, events.ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		again, err := events.Encode(p)
		if errors.Is(err, events.ErrTooLarge) {
			return
		}
		if err != nil {
			t.Fatalf("%+v is decoded, but not encoded: %v", p, err)
		}
		if q, err := catalogue().Decode("meter.read", again); err != nil ||
			fmt.Sprint(p) != fmt.Sprint(q) {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

// The schema has the prefix that its publisher has chosen, or the name of its source.
func TestSchemaHasThePublishersPrefix(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]string{"": "urn:meters:meter.read:1",
		"urn:acme:power:": "urn:acme:power:meter.read:1"} {
		e := events.Cause(events.Event{}, "/meters", time.Now(), reading{Meter: "m"})
		e.SchemaPrefix = prefix
		if r, err := e.Record(); err != nil || r.DataSchema != want {
			t.Errorf("prefix %q: %q, %v; want %q", prefix, r.DataSchema, err, want)
		}
	}
}
