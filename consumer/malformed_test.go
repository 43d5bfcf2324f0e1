package consumer_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// bad is a message that must be parked, and what its reason must say.
type bad struct {
	name, reason string
	spoil        func(m *rabbit.Message)
}

func header(key string, value any) func(m *rabbit.Message) {
	return func(m *rabbit.Message) { m.Headers[key] = value }
}

// withID gives a message another id, in the header and in the property.
func withID(id string) func(m *rabbit.Message) {
	return func(m *rabbit.Message) { m.MessageId, m.Headers["ce-id"] = id, id }
}

// badMessages are INP-01, INP-02, INP-03, CON-13.
var badMessages = []bad{
	{"empty id", "id", withID("")},
	{"no id at all", "id", func(m *rabbit.Message) { m.MessageId = ""; delete(m.Headers, "ce-id") }},
	{"id of 500 characters", "id", func(m *rabbit.Message) {
		m.MessageId, m.Headers["ce-id"] = "",
			strings.Repeat("0", 500)
	}},
	{"id that is no UUID", "id", withID("order-17")},
	{"id in braces", "id", withID("{0190b6a0-0000-7000-8000-000000000001}")},
	{"two ids", "id", header("ce-id", "0190b6a0-0000-7000-8000-000000000001")},
	{"empty body", "malformed", func(m *rabbit.Message) { m.Body = nil }},
	{"truncated body", "malformed", func(m *rabbit.Message) { m.Body = m.Body[:5] }},
	{"random bytes", "malformed", func(m *rabbit.Message) { m.Body = []byte{0, 255, 254, 1} }},
	{"duplicate key", "malformed",
		func(m *rabbit.Message) { m.Body = []byte(`{"order":"a","order":"b","text":""}`) }},
	{"deep nesting", "malformed", func(m *rabbit.Message) {
		m.Body = []byte(strings.Repeat("[",
			10_001))
	}},
	{"other content type", "content-type", func(m *rabbit.Message) { m.ContentType = "text/xml" }},
	{"compressed", "content-encoding", func(m *rabbit.Message) { m.ContentEncoding = "gzip" }},
	{"subject of another", "subject", header("ce-subject", "another")},
	{"unknown major version", "major", header("ce-dataschema", "urn:quadrille:order.noted:2")},
	{"type of another service", "forged", func(m *rabbit.Message) {
		m.Type, m.Headers["ce-type"], m.Key = "stall.opened", "stall.opened", "stall.opened"
	}},
	{"type that nobody says", "forged", func(m *rabbit.Message) {
		m.Type, m.Headers["ce-type"],
			m.Key = "un.known", "un.known", "un.known"
	}},
	{"type and key disagree", "forged", func(m *rabbit.Message) {
		m.Type,
			m.Headers["ce-type"] = "order.placed", "order.placed"
	}},
	{"no type", "forged", func(m *rabbit.Message) { m.Type = ""; delete(m.Headers, "ce-type") }},
	{"source of another", "forged", header("ce-source", "/stall")},
	{"subject that is not UTF-8", "subject", header("ce-subject", "\xff\xfe")},
	{"type that is not UTF-8", "type", header("ce-type", "order.\xff")},
	{"header that is not UTF-8", "malformed", func(m *rabbit.Message) {
		m.Headers["traceparent"],
			m.Body = "\xff", []byte("{")
	}},
	{"correlation that is not UTF-8", "malformed",
		func(m *rabbit.Message) { m.Headers["ce-correlationid"], m.Body = "\xff\x00", []byte("{") }},
	{"payload that panics", "panic",
		func(m *rabbit.Message) { m.Body = []byte(`{"order":"o","text":"panic"}`) }},
	{"time far away", "malformed", func(m *rabbit.Message) {
		delete(m.Headers, "ce-time")
		m.Timestamp, m.Body = time.Unix(1<<50, 0), []byte("{")
	}},
}

// INP-01, INP-02, INP-03, CON-13: what is not an event of ours is parked at once with its bytes, in
// one row for five copies, without an inbox row; and the events around it go on.
func TestBadMessagesAreParkedOnceWithTheirBytes(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	for _, key := range []string{"stall.opened", "un.known"} {
		w.Bind(topology.QueueOf(consumertest.Service), key, topology.ExchangeOf(consumertest.Shop))
	}
	var valid []events.Payload
	for i, b := range badMessages {
		m := w.Message(consumertest.Event(consumertest.Shop,
			consumertest.Noted{Order: fmt.Sprint("bad ", i), Text: b.name}))
		b.spoil(&m)
		w.Publish(copies(m)...)
		valid = append(valid, consumertest.Noted{Order: fmt.Sprint("good ", i)})
	}
	w.PublishAs(consumertest.Shop, valid...)
	c, stop := w.Bank(note("bank"), opened())
	w.Becomes(len(valid), notesCount)
	w.Becomes(len(badMessages), parkedCount)
	w.Eventually("every copy settled", func() (bool, string) {
		s := c.Stats()
		return s.Parked == int64(5*len(badMessages)), fmt.Sprintf("stats %+v; %s", s, w.Diagnosis())
	})
	stop()
	w.Drained()
	if n := w.Int(inboxCount); n != len(valid) {
		t.Errorf("%d inbox rows for %d valid events", n, len(valid))
	}
	parked, err := inbox.New(w.DB, consumertest.Service).Parked(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, p := range parked {
		if !strings.HasPrefix(p.Key, "sha256:") || p.Owner != topology.ExchangeOf(consumertest.Shop) ||
			p.Attempts != 0 {
			t.Errorf("parked as %+v", p)
		}
		reasons = append(reasons, p.Reason)
	}
	for _, b := range badMessages {
		if !contains(parked, b) {
			t.Errorf("%s: not parked with a reason that says %q; there are %q", b.name, b.reason, reasons)
		}
	}
	if s := c.Stats(); s.Delayed != 0 {
		t.Errorf("stats %+v: an attempt was spent", s)
	}
}

// copies returns five copies of a message, each with the trace context of a publication of its own.
func copies(m rabbit.Message) (list []rabbit.Message) {
	for i := range 5 {
		c := m
		c.Headers = maps.Clone(m.Headers)
		if _, spoilt := c.Headers["traceparent"].([]byte); !spoilt {
			c.Headers["traceparent"] = fmt.Sprintf("00-%032x-%016x-01", 1, i+1)
		}
		list = append(list, c)
	}
	return list
}

// contains reports whether a row has the bytes and the reason of b.
func contains(parked []inbox.Pending, b bad) bool {
	m := rabbit.Message{Publishing: amqp.Publishing{Headers: amqp.Table{}, Body: []byte(`{"order":`)}}
	b.spoil(&m)
	for _, p := range parked {
		if strings.Contains(p.Reason, b.reason) &&
			(strings.Contains(string(p.Body), `"text":"`+b.name+`"`) || string(p.Body) == string(m.Body)) {
			return true
		}
	}
	return false
}

func opened() consumer.Handler {
	return consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[consumertest.Opened]) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO notes (consumer, event_id, text) VALUES ('bank', $1,
			'opened')`, e.ID)
		return err
	})
}

// A bad message that the broker delivers again, with a count of deliveries in its headers, is the
// same message.
func TestABadMessageDeliveredAgainIsParkedOnce(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	r := newReplica(w, note("bank"))
	w.Consumers(topology.QueueOf(consumertest.Service), 1)
	r.amqp.Mute()
	m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o"}))
	m.Body = []byte("{")
	w.Publish(m)
	w.Becomes(1, parkedCount)
	r.amqp.CutAll() // the ack was lost
	w.Eventually("parked again", func() (bool, string) { return r.Stats().Parked == 2, w.Diagnosis() })
	r.stop()
	w.Drained()
	if n := w.Int(parkedCount); n != 1 {
		t.Errorf("parked %d times", n)
	}
}

// An event that is good but for what PostgreSQL refuses is parked at once, with its bytes (INP-06).
func TestDataThatPostgresRefusesIsParkedAtOnce(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	c, stop := w.Bank(note("bank"))
	published := w.PublishAs(consumertest.Shop,
		consumertest.Noted{Order: "o", Text: "nul \x00"},
		consumertest.Placed{Order: "p", Customer: "nul \x00", Amount: 1},
		consumertest.Noted{Order: "q", Text: "fine"},
	)
	w.Becomes(2, parkedCount)
	w.Becomes(1, notesCount)
	stop()
	w.Drained()
	for _, e := range published[:2] {
		p, err := inbox.New(w.DB, consumertest.Service).Find(t.Context(), e.ID)
		if err != nil || p.Due != nil || p.Attempts != 1 ||
			!strings.Contains(string(p.Body), `nul \u0000`) {
			t.Errorf("parked as %+v, %v", p, err)
		}
	}
	if n := w.Int(inboxCount); n != 3 {
		t.Errorf("%d inbox rows: a copy of a parked event would not be a duplicate", n)
	}
	if s := c.Stats(); s.Delayed != 0 || s.Parked != 2 {
		t.Errorf("stats %+v", s)
	}
}

// A message without CloudEvents, or with a time that nobody can store, is an event if it can be;
// its failure can be kept.
func TestAPlainMessageIsKeptAsItsEvent(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	sources := make(chan string, 10)
	failing := consumer.Handle(func(_ context.Context, _ *sqlx.Tx,
		e events.Of[consumertest.Noted]) error {
		sources <- e.Source
		if y := e.Time.Year(); y > 9999 {
			t.Errorf("it is said in the year %d", y)
		}
		return fmt.Errorf("not today")
	})
	_, stop := w.Bank(failing)
	e := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o"})
	m := w.Message(e)
	m.Headers, m.Timestamp = amqp.Table{}, time.Unix(1<<50, 0)
	w.Publish(m)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1 AND due > now()`)
	w.Exec(`UPDATE pending SET due = now()`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 2`)
	stop()
	w.Drained()
	if first, second := <-sources, <-sources; first != "/shop" || second != "/shop" {
		t.Errorf("source is %q, then %q", first, second)
	}
}

// What the broker gave up to deliver is parked as evidence: it never takes effect from there.
func TestDeadLettersAreEvidenceOnly(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	published := w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o", Text: "x"})
	w.Reject(topology.QueueOf(consumertest.Service))
	_, stop := w.Bank(note("bank"))
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND exchange = 'dead'
		AND reason LIKE 'dead-lettered%'`)
	if n := w.Int(notesCount) + w.Int(inboxCount); n != 0 {
		t.Error("a dead letter took effect")
	}
	w.Publish(w.Message(published[0])) // replayed, it is the same event
	w.Becomes(1, notesCount)
	stop()
	w.Drained()
	if n := w.Depth(topology.DeadQueueOf(consumertest.Service)); n != 0 {
		t.Errorf("%d are left in the dead-letter queue", n)
	}
	if n := w.Int(inboxCount); n != 1 {
		t.Errorf("%d inbox rows", n)
	}
}
