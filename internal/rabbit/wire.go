package rabbit

import (
	"fmt"
	"mime"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
)

// specVersion is the version in the header of all revisions of CloudEvents 1.0.
const specVersion = "1.0"

// timeFormat is RFC 3339 with the precision of PostgreSQL, which is a microsecond.
const timeFormat = "2006-01-02T15:04:05.999999Z07:00"

// Publishing encodes a record as CloudEvents 1.0 in binary mode, with the binding that is
// registered for AMQP 0-9-1 (headers "ce-…"). It also sets the native properties, which AMQP tools
// show.
func Publishing(r events.Record) amqp.Publishing {
	headers := amqp.Table{
		"ce-specversion":   specVersion,
		"ce-id":            r.ID,
		"ce-source":        r.Source,
		"ce-type":          r.Type,
		"ce-subject":       r.Subject,
		"ce-time":          r.Time.UTC().Format(timeFormat),
		"ce-dataschema":    r.DataSchema,
		"ce-correlationid": r.CorrelationID,
		"ce-partitionkey":  r.Subject,
	}
	if r.CausationID != "" {
		headers["ce-causationid"] = r.CausationID
	}
	if r.Sequence > 0 { // the Sequence extension compares as text, so the number has leading zeros
		headers["ce-sequence"] = fmt.Sprintf("%020d", r.Sequence)
	}
	if r.TraceParent != "" {
		headers["traceparent"] = r.TraceParent
	}
	return amqp.Publishing{
		Headers: headers, ContentType: "application/json", DeliveryMode: amqp.Persistent,
		MessageId: r.ID, Type: r.Type, CorrelationId: r.CorrelationID,
		AppId: strings.TrimPrefix(r.Source, "/"), Timestamp: r.Time.UTC(), Body: r.Data,
	}
}

// Record decodes a delivery. It accepts CloudEvents in binary mode with the prefixes "ce-",
// "cloudEvents_" or "cloudEvents:", CloudEvents in structured mode, and messages that have only
// AMQP's own message-id and type. Missing attributes stay empty, and the caller checks them. If
// attributes contradict each other, the error is events.ErrMalformed.
func Record(d amqp.Delivery) (events.Record, error) {
	r, err := decode(d)
	if fault, ok := d.Headers[undecodableHeader]; ok && err == nil {
		return r, fmt.Errorf("%w: headers: %.200s", events.ErrMalformed, text(fault))
	}
	return r, err
}

func decode(d amqp.Delivery) (events.Record, error) {
	mediaType, _, err := mime.ParseMediaType(d.ContentType)
	if err != nil && d.ContentType != "" {
		return events.Record{}, fmt.Errorf("%w: content-type %.80q", events.ErrMalformed, d.ContentType)
	}
	if strings.HasPrefix(mediaType, "application/cloudevents") {
		return structured(mediaType, d)
	}
	if mediaType != "" && mediaType != "application/json" && !strings.HasSuffix(mediaType, "+json") {
		return events.Record{}, fmt.Errorf("%w: content-type %.80q is not JSON", events.ErrMalformed,
			d.ContentType)
	}
	if d.ContentEncoding != "" && !strings.EqualFold(d.ContentEncoding, "utf-8") {
		return events.Record{}, fmt.Errorf("%w: content-encoding %.80q", events.ErrMalformed,
			d.ContentEncoding)
	}
	attributes := map[string]string{}
	for key, value := range d.Headers {
		name, ok := attribute(key)
		if !ok {
			continue
		}
		if other, found := attributes[name]; found && other != text(value) {
			return events.Record{}, fmt.Errorf("%w: two headers set %.40s to different values",
				events.ErrMalformed, name)
		}
		attributes[name] = text(value)
	}
	return record(attributes, d, d.Body)
}

// attribute returns the name of the CloudEvents attribute in a header, without the prefix.
func attribute(key string) (string, bool) {
	for _, prefix := range []string{"ce-", "cloudEvents_", "cloudEvents:"} {
		if name, ok := strings.CutPrefix(key, prefix); ok {
			return strings.ToLower(name), true
		}
	}
	return "", false
}

// text returns the canonical string of a header's value. Other producers use types of AMQP, such as
// a timestamp, where the kit uses strings.
func text(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case time.Time:
		return v.UTC().Format(timeFormat)
	case nil:
		return ""
	}
	return fmt.Sprint(value)
}

func record(a map[string]string, d amqp.Delivery, data []byte) (events.Record, error) {
	if v := a["specversion"]; v != "" && v != specVersion {
		return events.Record{}, fmt.Errorf("%w: specversion %.16q", events.ErrMalformed, v)
	}
	r := events.Record{
		ID: a["id"], Source: a["source"], Type: a["type"], Subject: a["subject"],
		DataSchema:    a["dataschema"],
		CorrelationID: a["correlationid"], CausationID: a["causationid"], Time: d.Timestamp, Data: data,
	}
	for _, property := range []struct {
		name, native string
		field        *string
	}{{"id", d.MessageId, &r.ID}, {"type", d.Type, &r.Type}, {"correlationid", d.CorrelationId,
		&r.CorrelationID}} {
		if *property.field == "" {
			*property.field = property.native
		} else if property.native != "" && property.native != *property.field &&
			property.name != "correlationid" {
			return r, fmt.Errorf("%w: %s is %.64q in the header and %.64q in the property",
				events.ErrMalformed, property.name, *property.field, property.native)
		}
	}
	if at := a["time"]; at != "" {
		parsed, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			return r, fmt.Errorf("%w: time %.64q is not RFC 3339", events.ErrMalformed, at)
		}
		r.Time = parsed.UTC()
	}
	if seq := a["sequence"]; seq != "" {
		r.Sequence, _ = strconv.ParseInt(seq, 10, 64) // the text of another producer need not be a number
	}
	for _, trace := range []string{a["traceparent"], text(d.Headers["traceparent"])} {
		if events.ValidTrace(trace) {
			r.TraceParent = trace
		}
	}
	for name, id := range map[string]string{"correlationid": r.CorrelationID,
		"causationid": r.CausationID, "source": r.Source} {
		if len(id) > maxShortString {
			return r, fmt.Errorf("%w: %s of %d bytes is too long: at most %d are allowed",
				events.ErrMalformed, name, len(id), maxShortString)
		}
	}
	return r, nil
}

// structured decodes the JSON event format, in which one JSON object has the attributes and the
// data.
func structured(mediaType string, d amqp.Delivery) (events.Record, error) {
	if mediaType != "application/cloudevents+json" {
		return events.Record{}, fmt.Errorf("%w: content-type %.80q is not supported", events.ErrMalformed,
			mediaType)
	}
	var members map[string]jsontext.Value
	if err := json.Unmarshal(d.Body, &members); err != nil {
		return events.Record{}, fmt.Errorf("%w: decode structured event: %v", events.ErrMalformed, err)
	}
	attributes := map[string]string{}
	for name, value := range members {
		if name == "data" || value.Kind() == 'n' {
			continue
		}
		if value.Kind() != '"' {
			attributes[name] = string(value)
			continue
		}
		var s string
		if err := json.Unmarshal(value, &s); err != nil {
			return events.Record{}, fmt.Errorf("%w: attribute %.40q: %v", events.ErrMalformed, name, err)
		}
		attributes[name] = s
	}
	if _, ok := members["data"]; !ok {
		return events.Record{}, fmt.Errorf("%w: structured event without data", events.ErrMalformed)
	}
	return record(attributes, d, members["data"])
}
