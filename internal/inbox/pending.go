package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// maxReason bounds the stored text of an error, in bytes.
const maxReason = 2000

// ErrNotFound means that no pending row has this key.
var ErrNotFound = errors.New("not found")

// Kind says why a row is pending.
type Kind string

// The kinds of pending rows, as in the table.
const (
	Retry     Kind = "retry"    // an event whose handler failed
	ADeadline Kind = "deadline" // a message of the service to its own reactions, after a time
	Call      Kind = "call"     // a call to another system
	Unknown   Kind = "unknown"  // an event that only another release handles
	Evidence  Kind = "evidence" // a malformed or contradictory message, which is only ever parked
)

// Pending is a row of the table pending: an event or a call that waits for its next attempt,
// a deadline, or a parked event.
type Pending struct {
	Owner string `db:"owner" json:"owner"`
	// Key is the id of the event, or a hash of the message if it has no valid id.
	Key        string     `db:"key" json:"id"`
	Kind       Kind       `db:"kind" json:"kind"`
	Type       string     `db:"type" json:"type"`
	Exchange   string     `db:"exchange" json:"exchange"`
	RoutingKey string     `db:"routing_key" json:"routing_key"`
	Attributes Attributes `db:"attributes" json:"attributes"`
	Body       []byte     `db:"body" json:"body"`
	Attempts   int        `db:"attempts" json:"attempts"`
	Due        *time.Time `db:"due" json:"due,omitempty"` // nil: parked
	Reason     string     `db:"reason" json:"reason"`
	CreatedAt  time.Time  `db:"created_at" json:"created_at"`
	UpdatedAt  time.Time  `db:"updated_at" json:"updated_at"`
	Age        float64    `db:"age" json:"-"` // seconds since CreatedAt by the database's clock
}

// Attributes is the envelope of a pending event as a JSON column.
type Attributes = pg.JSON[Envelope]

// Envelope is events.Record without its data.
type Envelope struct {
	ID            string    `json:"id,omitzero"`
	Source        string    `json:"source,omitzero"`
	Type          string    `json:"type,omitzero"`
	Subject       string    `json:"subject,omitzero"`
	DataSchema    string    `json:"dataschema,omitzero"`
	CorrelationID string    `json:"correlationid,omitzero"`
	CausationID   string    `json:"causationid,omitzero"`
	TraceParent   string    `json:"traceparent,omitzero"`
	Time          time.Time `json:"time,omitzero"`
	Sequence      int64     `json:"sequence,omitzero"`
}

// lastYear is the last year that RFC 3339, and therefore JSON, can represent.
const lastYear = 9999

// EnvelopeOf returns the envelope of a record. It replaces the parts that cannot be stored, since
// a malformed message may contain invalid UTF-8 or a time that JSON cannot represent.
func EnvelopeOf(r events.Record) Attributes {
	if y := r.Time.UTC().Year(); y < 0 || y > lastYear {
		r.Time = time.Time{}
	}
	return Attributes{V: Envelope{
		ID: validText(r.ID), Source: validText(r.Source), Type: validText(r.Type),
		Subject:       validText(r.Subject),
		DataSchema:    validText(r.DataSchema),
		CorrelationID: validText(r.CorrelationID), CausationID: validText(r.CausationID),
		TraceParent: validText(r.TraceParent),
		Time:        r.Time.UTC(), Sequence: r.Sequence,
	}}
}

// Record returns the pending event as it was received.
func (p Pending) Record() events.Record {
	a := p.Attributes.V
	return events.Record{
		ID: a.ID, Source: a.Source, Type: a.Type, Subject: a.Subject, DataSchema: a.DataSchema,
		CorrelationID: a.CorrelationID, CausationID: a.CausationID, TraceParent: a.TraceParent,
		Time: a.Time, Sequence: a.Sequence, Data: p.Body,
	}
}

// Add inserts p in tx. It is due after a pause from now, by the clock of the database, or it is
// parked. If a row with the same key exists, nothing changes, since the event was delivered twice.
func (i *Inbox) Add(ctx context.Context, tx *sqlx.Tx, p Pending, after time.Duration,
	park bool) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key, attributes, body,
			attempts, due, reason)
		VALUES ($1, $2, $3, $13, $4, $5, $6, $7, $8, $9, CASE WHEN $10 THEN NULL
			ELSE now() + $11 * interval '1 second' END, $12)
		ON CONFLICT DO NOTHING`,
		i.consumer, storable(p.Owner), storable(p.Key), storable(p.Type), storable(p.Exchange),
		storable(p.RoutingKey),
		p.Attributes, p.Body, p.Attempts,
		park, after.Seconds(), storable(p.Reason), kindOr(p.Kind, Retry))
	if err != nil {
		return fmt.Errorf("add pending %.80q: %w", p.Key, err)
	}
	return nil
}

// Enqueue inserts events that are due at once, in one statement. Like Add, it does not change rows
// that exist.
func (i *Inbox) Enqueue(ctx context.Context, tx *sqlx.Tx, list ...Pending) error {
	if len(list) == 0 {
		return nil
	}
	var owners, keys, kinds, types, exchanges, routing, attributes pq.StringArray
	var bodies pq.ByteaArray
	for _, p := range list {
		envelope, err := p.Attributes.Value()
		if err != nil {
			return fmt.Errorf("enqueue %.80q: %w", p.Key, err)
		}
		owners, keys, types = append(owners, storable(p.Owner)), append(keys, storable(p.Key)),
			append(types, storable(p.Type))
		kinds = append(kinds, kindOr(p.Kind, Retry))
		exchanges, routing = append(exchanges, storable(p.Exchange)),
			append(routing, storable(p.RoutingKey))
		attributes, bodies = append(attributes, fmt.Sprintf("%s", envelope)), append(bodies, p.Body)
	}
	insert, err := i.statements.In(ctx, tx, `
		INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key, attributes, body,
			attempts, due, reason)
		SELECT $1, p.*, 0, now(), '' FROM unnest($2::text[], $3::text[], $9::text[], $4::text[],
			$5::text[], $6::text[], $7::json[], $8::bytea[]) AS p
		ON CONFLICT DO NOTHING`)
	if err == nil {
		_, err = insert.ExecContext(ctx, i.consumer, owners, keys, types, exchanges, routing, attributes,
			bodies, kinds)
	}
	return wrap("enqueue", err)
}

// kindOr returns k, or otherwise if k is empty.
func kindOr(k, otherwise Kind) string { return string(cmp.Or(k, otherwise)) }

// validText makes a text valid for PostgreSQL: it replaces invalid UTF-8 and NUL. A message must be
// stored for a person even if its invalid text is the reason.
func validText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// storable returns the valid text of s, cut to maxReason.
func storable(s string) string {
	s = validText(s)
	if len(s) <= maxReason {
		return s
	}
	s = s[:maxReason]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// Deadline is an event that is delivered to the consumer's own reactions after some time.
type Deadline struct {
	After time.Duration
	Event events.Event
}

// Schedule sets deadlines in tx, in one statement. Each is delivered once, after its time by the
// clock of the database, which all replicas share. If a deadline with the same type and subject
// exists, Schedule replaces it and resets its attempts.
func (i *Inbox) Schedule(ctx context.Context, tx *sqlx.Tx, deadlines ...Deadline) error {
	last := map[string]int{} // by key, the index in the lists below
	var keys, types, attributes pq.StringArray
	var bodies pq.ByteaArray
	var after pq.Float64Array
	for _, d := range deadlines {
		r, err := d.Event.Record()
		if err != nil {
			return fmt.Errorf("schedule: %w", err)
		}
		envelope, err := EnvelopeOf(r).Value()
		if err != nil {
			return fmt.Errorf("schedule %s of %s: %w", r.Type, r.Subject, err)
		}
		key := DeadlineKey(r.Type, r.Subject)
		n, found := last[key] // of two deadlines with one key, the later one counts
		if !found {
			n = len(keys)
			last[key] = n
			keys, types, attributes = append(keys, key), append(types, r.Type), append(attributes, "")
			bodies, after = append(bodies, nil), append(after, 0)
		}
		attributes[n], bodies[n], after[n] = fmt.Sprintf("%s", envelope), r.Data, d.After.Seconds()
	}
	if len(keys) == 0 {
		return nil
	}
	insert, err := i.statements.In(ctx, tx, `
		INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key, attributes, body,
			attempts, due, reason)
		SELECT $1, $1, d.key, 'deadline', d.type, '', '', d.attributes, d.body, 0,
			clock_timestamp() + d.after * interval '1 second', 'deadline'
		FROM unnest($2::text[], $3::text[], $4::json[], $5::bytea[], $6::float8[]) AS d (key, type,
			attributes, body, after)
		ON CONFLICT (consumer, owner, key) DO UPDATE SET due = EXCLUDED.due, body = EXCLUDED.body,
			attributes = EXCLUDED.attributes, attempts = 0, reason = EXCLUDED.reason, updated_at = now()`)
	if err == nil {
		_, err = insert.ExecContext(ctx, i.consumer, keys, types, attributes, bodies, after)
	}
	if err != nil {
		return fmt.Errorf("schedule %s: %w", keys[0], err)
	}
	return nil
}

// DeadlineKey returns the key of a deadline. Each type and subject has one deadline.
func DeadlineKey(eventType, subject string) string { return eventType + ":" + subject }

const pendingColumns = `owner, key, kind, type, exchange, routing_key, attributes, body,
	attempts, due, reason, created_at, updated_at,
	extract(epoch FROM now() - created_at)::float8 AS age`

// Parked returns at most limit parked events, oldest first.
func (i *Inbox) Parked(ctx context.Context, limit int) ([]Pending, error) {
	parked := []Pending{}
	err := i.db.SelectContext(ctx, &parked, `SELECT `+pendingColumns+` FROM pending
		WHERE consumer = $1 AND due IS NULL ORDER BY created_at, key LIMIT $2`, i.consumer, limit)
	return parked, wrap("list parked", err)
}

// Find returns the pending row with a key, or ErrNotFound.
func (i *Inbox) Find(ctx context.Context, key string) (Pending, error) {
	var found []Pending
	err := i.db.SelectContext(ctx, &found, `SELECT `+pendingColumns+` FROM pending WHERE consumer = $1
		AND key = $2 LIMIT 1`, i.consumer, key)
	if err != nil {
		return Pending{}, wrap("find pending", err)
	}
	if len(found) == 0 {
		return Pending{}, fmt.Errorf("pending %.80q: %w", key, ErrNotFound)
	}
	return found[0], nil
}

// Counts returns how many events and calls wait, without deadlines, and how many are parked.
func (i *Inbox) Counts(ctx context.Context) (waiting, parked int, err error) {
	err = i.db.QueryRowxContext(ctx, `SELECT count(*) FILTER (WHERE due IS NOT NULL
		AND kind <> 'deadline'), count(*) FILTER (WHERE due IS NULL)
		FROM pending WHERE consumer = $1`, i.consumer).Scan(&waiting, &parked)
	return waiting, parked, wrap("count pending", err)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
