package rabbit_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

const (
	order = "0190a0e0-0000-7000-8000-000000000001"
	id    = "0190a0e0-0000-7000-8000-0000000000ff"
	trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)

// record returns the record that the outbox would publish for a payload, with fixed ids and time.
func record(t testing.TB, p events.Payload) events.Record {
	t.Helper()
	r, err := events.Event{
		ID: id, Source: "/orders", SchemaPrefix: fulfilment.Topology().SchemaPrefix(),
		CorrelationID: order,
		CausationID:   "0190a0e0-0000-7000-8000-0000000000aa", TraceParent: trace,
		Time: time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.FixedZone("CET", 3600)), Data: p,
	}.Record()
	must(t, err)
	r.Sequence = 42
	return r
}

// The wire format is a contract: a change here breaks other consumers.
func TestWireFormatMatchesGoldenFiles(t *testing.T) {
	t.Parallel()
	for _, p := range fulfilment.Samples(order) {
		path := filepath.Join("testdata", p.EventType()+".golden")
		got := render(rabbit.Publishing(record(t, p)))
		if *update {
			must(t, os.WriteFile(path, got, 0o644))
		}
		want, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s (go test -update rewrites it):\n%s\nwant\n%s", path, got, want)
		}
	}
}

func render(p amqp.Publishing) []byte {
	var b bytes.Buffer
	for _, property := range []struct {
		name  string
		value any
	}{
		{"content-type", p.ContentType}, {"delivery-mode", p.DeliveryMode}, {"message-id", p.MessageId},
		{"type", p.Type},
		{"correlation-id", p.CorrelationId}, {"app-id", p.AppId},
		{"timestamp", p.Timestamp.Format(time.RFC3339Nano)},
	} {
		fmt.Fprintf(&b, "%s: %v\n", property.name, property.value)
	}
	var names []string
	for name := range p.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "header %s: %T %v\n", name, p.Headers[name], p.Headers[name])
	}
	fmt.Fprintf(&b, "\n%s\n", p.Body)
	return b.Bytes()
}

func TestRecordComesBackAsItWasPublished(t *testing.T) {
	t.Parallel()
	for _, p := range fulfilment.Samples(order) {
		want := record(t, p)
		got, err := rabbit.Record(delivery(rabbit.Publishing(want)))
		must(t, err)
		if !got.Time.Equal(want.Time) {
			t.Errorf("time %s, want %s", got.Time, want.Time)
		}
		got.Time = want.Time
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
}

func delivery(p amqp.Publishing) amqp.Delivery {
	return amqp.Delivery{
		Headers: p.Headers, ContentType: p.ContentType, ContentEncoding: p.ContentEncoding,
		MessageId: p.MessageId, Type: p.Type,
		CorrelationId: p.CorrelationId, AppId: p.AppId, Timestamp: p.Timestamp, Body: p.Body,
	}
}

// Events in the formats of other producers are decoded to the same record.
func TestOtherBindingsAreRead(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := events.Record{ID: id, Source: "/orders", Type: "order.confirmed", Subject: order, Time: at,
		Data: []byte(`{"order_id":"` + order + `"}`)}
	for name, d := range map[string]amqp.Delivery{
		"cloudEvents_": {ContentType: "application/json; charset=utf-8", Body: want.Data,
			Headers: amqp.Table{
				"cloudEvents_id": id, "cloudEvents_source": "/orders", "cloudEvents_type": want.Type,
				"cloudEvents_subject": order, "cloudEvents_time": "2026-01-02T04:04:05+01:00"}},
		"cloudEvents:": {ContentType: "application/json", Body: want.Data, Headers: amqp.Table{
			"cloudEvents:id": id, "cloudEvents:source": []byte("/orders"), "cloudEvents:type": want.Type,
			"cloudEvents:subject": order, "cloudEvents:time": at}},
		"structured": {ContentType: "application/cloudevents+json; charset=UTF-8",
			Body: []byte(`{"specversion":"1.0","id":"` + id + `","source":"/orders",
			"type":"order.confirmed","subject":"` + order + `","time":"2026-01-02T03:04:05Z","data":` +
				string(want.Data) + `,"extra":7,"nothing":null}`)},
		"only AMQP's own": {ContentType: "application/json", ContentEncoding: "UTF-8", Body: want.Data,
			MessageId: id, Type: want.Type, Timestamp: at,
			Headers: amqp.Table{"ce-source": "/orders", "ce-subject": order, "x-death": amqp.Table{}}},
		"upper case": {Body: want.Data, Timestamp: at, Headers: amqp.Table{"ce-ID": id,
			"ce-Source": "/orders", "ce-TYPE": want.Type, "ce-subject": order}},
	} {
		got, err := rabbit.Record(d)
		must(t, err)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s:\ngot  %v\nwant %v", name, got, want)
		}
	}
}

func TestTraceIsReadFromEitherPlace(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{"traceparent": trace, "ce-traceparent": trace,
		"cloudEvents:traceparent": trace, "tracestate": ""} {
		if got, err := rabbit.Record(amqp.Delivery{Headers: amqp.Table{header: trace}}); err != nil ||
			got.TraceParent != want {
			t.Errorf("%s: %q, %v", header, got.TraceParent, err)
		}
	}
	if got,
		err := rabbit.Record(amqp.Delivery{Headers: amqp.Table{"traceparent": "00-x"}}); err != nil ||
		got.TraceParent != "" {
		t.Errorf("an invalid trace is kept: %q, %v", got.TraceParent, err)
	}
}

func TestContradictionsAreMalformed(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]amqp.Delivery{
		"two ids":          {MessageId: id, Headers: amqp.Table{"ce-id": order}},
		"two types":        {Type: "a.b", Headers: amqp.Table{"ce-type": "a.c"}},
		"two headers":      {Headers: amqp.Table{"ce-id": order, "cloudEvents:id": id}},
		"two cases":        {Headers: amqp.Table{"ce-id": order, "ce-Id": id}},
		"specversion":      {Headers: amqp.Table{"ce-specversion": "0.3"}},
		"time":             {Headers: amqp.Table{"ce-time": "yesterday"}},
		"not JSON":         {ContentType: "text/xml"},
		"content-type":     {ContentType: ";"},
		"compressed":       {ContentType: "application/json", ContentEncoding: "gzip"},
		"batch":            {ContentType: "application/cloudevents-batch+json", Body: []byte(`[]`)},
		"long source":      {Headers: amqp.Table{"ce-source": strings.Repeat("s", 256)}},
		"long correlation": {Headers: amqp.Table{"ce-correlationid": strings.Repeat("s", 256)}},
		"no data":          {ContentType: "application/cloudevents+json", Body: []byte(`{"id":"1"}`)},
		"data twice": {ContentType: "application/cloudevents+json",
			Body: []byte(`{"data":1,"data":2}`)},
		"trailing data": {ContentType: "application/cloudevents+json", Body: []byte(`{"data":1}{}`)},
		"structured or not": {ContentType: "application/cloudevents+json", MessageId: id,
			Body: []byte(`{"id":"` + order + `","data":{}}`)},
		"no object": {ContentType: "application/cloudevents+json", Body: []byte(`7`)},
	} {
		if got, err := rabbit.Record(d); !errors.Is(err, events.ErrMalformed) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// A record that was decoded can be published and decoded again without a change.
func FuzzRecord(f *testing.F) {
	f.Add("application/json", "ce-id", id, id, "order.placed", []byte(`{}`))
	f.Add("application/cloudevents+json", "cloudEvents:time", "2026-01-02T03:04:05Z", "", "",
		[]byte(`{"id":"1","data":{"a":1}}`))
	f.Add("text/plain", "", "", "", "", []byte("\xff"))
	f.Fuzz(func(t *testing.T, contentType, header, value, messageID, eventType string, body []byte) {
		first, err := rabbit.Record(amqp.Delivery{ContentType: contentType,
			Headers: amqp.Table{header: value}, MessageId: messageID, Type: eventType, Body: body})
		if err != nil {
			if !errors.Is(err, events.ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if y := first.Time.Year(); y < 1 || y > 9999 {
			return // RFC 3339 cannot represent this time
		}
		first.Time = first.Time.Truncate(time.Microsecond) // the precision of the wire format
		second, err := rabbit.Record(delivery(rabbit.Publishing(first)))
		if err != nil {
			t.Fatalf("%+v cannot be decoded again: %v", first, err)
		}
		if second.ID != first.ID || second.Type != first.Type || second.Source != first.Source ||
			second.Subject != first.Subject ||
			second.CausationID != first.CausationID || !bytes.Equal(second.Data, first.Data) ||
			!second.Time.Equal(first.Time) {
			t.Fatalf("\nfirst  %+v\nsecond %+v", first, second)
		}
	})
}
