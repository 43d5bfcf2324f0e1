// Package outboxtest provides what the tests of the relay share: an Env with a database and a
// vhost, a proxy in front of the broker, a relay as a process of its own, and hostile writers.
package outboxtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// Note is the event of these tests, which is note number N about the aggregate On.
type Note struct {
	On   string `json:"on"`
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

func (Note) EventType() string { return "note.taken" }
func (n Note) Subject() string { return n.On }

// Orphan is an event for whose type no queue is bound until a test binds one.
type Orphan struct {
	On string `json:"on"`
}

func (Orphan) EventType() string { return "orphan.born" }
func (o Orphan) Subject() string { return o.On }

// Exchange is the exchange on which the relays publish.
const Exchange = "notes.events"

// Env is a database with an outbox, and a vhost with an exchange and a quorum queue.
type Env struct {
	t        testing.TB
	Database string // URL
	DB       *sqlx.DB
	Out      *outbox.Outbox
	AMQP     string
	Manage   string
	Queue    string
	Admin    *amqp.Channel
}

// New returns an Env on the shared servers.
func New(t testing.TB) *Env {
	t.Helper()
	return NewOn(t, database(t))
}

// NewWithoutBroker returns an Env without a vhost, for tests that use the database alone.
func NewWithoutBroker(t testing.TB) *Env {
	t.Helper()
	return (&Env{}).WithDatabase(t, database(t))
}

func database(t testing.TB) string {
	t.Helper()
	return servertest.Database(t, migrationsKey(t), func(ctx context.Context, url string) error {
		return pg.Migrate(ctx, url, "outbox", outbox.Migrations())
	})
}

// NewOn returns an Env on a database that has the migrations, and on the shared broker.
func NewOn(t testing.TB, database string) *Env {
	t.Helper()
	s := (&Env{Queue: "notes.in"}).WithDatabase(t, database)
	s.AMQP, s.Manage = servertest.Vhost(t)
	s.Admin = s.Channel()
	s.DeclareExchange()
	s.DeclareQueue(s.Queue, nil)
	s.Bind(s.Queue, "note.taken")
	return s
}

// WithDatabase returns the same Env with another database.
func (s *Env) WithDatabase(t testing.TB, database string) *Env {
	t.Helper()
	moved := *s
	moved.t, moved.Database, moved.DB = t, database, OpenDB(t, database)
	moved.Out = outbox.New(moved.DB)
	return &moved
}

// DeclareExchange declares the exchange on which the relays publish.
func (s *Env) DeclareExchange() {
	s.t.Helper()
	if err := s.Admin.ExchangeDeclare(Exchange, "topic", true, false, false, false, nil); err != nil {
		s.t.Fatal(err)
	}
}

// OpenDB opens a connection pool, which is closed at the end of the test.
func OpenDB(t testing.TB, url string) *sqlx.DB {
	t.Helper()
	db, err := pg.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// migrationsKey identifies the present migrations, so that a template database is not used with
// others.
func migrationsKey(t testing.TB) string {
	t.Helper()
	sum := sha256.New()
	err := fs.WalkDir(outbox.Migrations(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(outbox.Migrations(), path)
		sum.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return "outbox " + hex.EncodeToString(sum.Sum(nil))
}

// Channel opens a channel on a new connection, which is closed at the end of the test.
func (s *Env) Channel() *amqp.Channel {
	s.t.Helper()
	conn, err := amqp.Dial(s.AMQP)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		s.t.Fatal(err)
	}
	return ch
}

func (s *Env) DeclareQueue(name string, args amqp.Table) {
	s.t.Helper()
	all := amqp.Table{"x-queue-type": "quorum"}
	maps.Copy(all, args)
	if _, err := s.Admin.QueueDeclare(name, true, false, false, false, all); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Env) Bind(queue, key string) {
	s.t.Helper()
	if err := s.Admin.QueueBind(queue, key, Exchange, false, nil); err != nil {
		s.t.Fatal(err)
	}
}

// Relay returns a relay of this outbox that logs to the test.
func (s *Env) Relay(out *outbox.Outbox) *outbox.Relay {
	return &outbox.Relay{
		Outbox: out, URL: s.AMQP, Database: s.Database, Name: "notes", Exchange: Exchange,
		Log: zerolog.New(zerolog.NewTestWriter(s.t)).Level(zerolog.InfoLevel),
	}
}

// Run runs a relay until the test ends or stop is called.
func (s *Env) Run(r *outbox.Relay) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	s.t.Cleanup(stop)
	return stop
}

// Event returns a new event with this payload.
func Event(p events.Payload) events.Event {
	return events.Cause(events.Event{}, "/notes", time.Now(), p)
}

// AppendNotes appends notes about one aggregate in one transaction and returns their ids.
func (s *Env) AppendNotes(on string, numbers ...int) []string {
	s.t.Helper()
	var published []events.Event
	var ids []string
	for _, n := range numbers {
		e := Event(Note{On: on, N: n})
		published, ids = append(published, e), append(ids, e.ID)
	}
	s.Append(published...)
	return ids
}

func (s *Env) Append(published ...events.Event) {
	s.t.Helper()
	err := s.Out.Tx(s.t.Context(), func(tx *sqlx.Tx) error {
		return s.Out.Append(s.t.Context(), tx,
			published...)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// Receive consumes n messages of a queue and acknowledges them. Further deliveries go back to the
// queue.
func (s *Env) Receive(queue string, n int) []amqp.Delivery {
	s.t.Helper()
	next, stop := s.Consume(queue)
	defer stop()
	var got []amqp.Delivery
	for len(got) < n {
		got = append(got, next())
	}
	return got
}

// Consume returns a function that receives and acknowledges one message of a queue. Its channel
// stays open until the end of the test: when a channel closes, a busy broker may forget the last
// acknowledgements and deliver those messages again.
func (s *Env) Consume(queue string) (next func() amqp.Delivery, stop func()) {
	s.t.Helper()
	ch := s.Channel()
	if err := ch.Qos(1000, 0, false); err != nil {
		s.t.Fatal(err)
	}
	deliveries, err := ch.Consume(queue, "test", false, false, false, false, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	got := 0
	return func() amqp.Delivery {
		s.t.Helper()
		deadline := time.NewTimer(Timeout)
		defer deadline.Stop()
		select {
		case d, ok := <-deliveries:
			if !ok {
				s.t.Fatalf("the consumer of %s ended after %d messages", queue, got)
			}
			if err := d.Ack(false); err != nil {
				s.t.Fatal(err)
			}
			got++
			return d
		case <-deadline.C:
			s.t.Fatalf("no message in %s for %s, after %d messages\n%s", queue, Timeout, got, s.Diagnose())
		}
		return amqp.Delivery{}
	}, func() { cancelConsumer(ch, deliveries) }
}

// cancelConsumer ends a consumer and returns the deliveries that were not received to the queue. On
// an error the channel has ended, and the broker requeues them by itself.
func cancelConsumer(ch *amqp.Channel, deliveries <-chan amqp.Delivery) {
	if ch.Cancel("test", false) != nil {
		return
	}
	for d := range deliveries {
		_ = d.Nack(false, true)
	}
	_ = ch.Qos(0, 0, false) // the broker answers after it has read the nacks
}

// ExpectNoMore fails the test if the queue contains a message. It appends a marker, which the relay
// must publish, and expects it as the next message.
func (s *Env) ExpectNoMore(queue string) {
	s.t.Helper()
	marker := s.AppendNotes("marker", 1)
	if got := s.Receive(queue, 1); got[0].MessageId != marker[0] {
		s.t.Errorf("unexpected message %s: %s", got[0].MessageId, got[0].Body)
	}
}

// Await consumes a queue until each of the ids was delivered, in any order and any number of times.
func (s *Env) Await(queue string, ids []string) {
	s.t.Helper()
	next, stop := s.Consume(queue)
	defer stop()
	missing := map[string]bool{}
	for _, id := range ids {
		missing[id] = true
	}
	for len(missing) > 0 {
		delete(missing, next().MessageId)
	}
}

// Timeout is how long a test waits for something that must happen.
const Timeout = quadrilletest.Timeout

// WaitFor waits for a condition, and fails the test with a diagnosis if it does not hold within
// Timeout.
func (s *Env) WaitFor(what string, f func() bool) {
	s.t.Helper()
	end := time.Now().Add(Timeout / 2) // the diagnosis has queries, which most waits do without
	quadrilletest.WaitFor(s.t, what, func() (bool, string) {
		if f() {
			return true, ""
		}
		if time.Now().Before(end) {
			return false, ""
		}
		return false, "\n" + s.Diagnose()
	})
}

// AwaitSettled waits until the relay has settled all rows. A test calls it before a proxy holds
// back confirms: the relay publishes nothing more while it awaits the confirm of an earlier event.
func (s *Env) AwaitSettled() {
	s.t.Helper()
	s.WaitFor("all rows are settled", func() bool {
		return s.Count(`SELECT count(*) FROM outbox, outbox_cursor
			WHERE NOT pg_visible_in_snapshot(outbox.txid, a)`) == 0
	})
}

// Diagnose describes the cursor, the held rows and the outbox.
func (s *Env) Diagnose() string {
	var text strings.Builder
	for _, query := range []string{
		`SELECT coalesce(json_agg(c)::text, '-') FROM outbox_cursor c`,
		`SELECT coalesce(json_agg(h)::text, '-') FROM (SELECT * FROM outbox_held ORDER BY seq LIMIT 5) h`,
		`SELECT concat_ws(' ', 'held', count(*)) FROM outbox_held`,
		`SELECT concat_ws(' ', 'rows', count(*), 'seq', min(seq), max(seq), 'snapshot',
			pg_current_snapshot()) FROM outbox`,
	} {
		var line string
		if err := s.DB.GetContext(context.Background(), &line, query); err != nil {
			line = err.Error()
		}
		text.WriteString("  " + line + "\n")
	}
	return text.String()
}

func (s *Env) Exec(query string, args ...any) {
	s.t.Helper()
	if _, err := s.DB.ExecContext(s.t.Context(), query, args...); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
}

func (s *Env) Count(query string, args ...any) (n int64) {
	s.t.Helper()
	if err := s.DB.GetContext(s.t.Context(), &n, query, args...); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// Depth returns the number of ready messages in a queue. A busy queue may report 0.
func (s *Env) Depth(queue string) int {
	s.t.Helper()
	q, err := s.Admin.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return q.Messages
}

func MessageIDs(got []amqp.Delivery) []string {
	ids := make([]string, len(got))
	for i, d := range got {
		ids[i] = d.MessageId
	}
	return ids
}

func Aggregate(i int) string { return "aggregate-" + strconv.Itoa(i) }

// Begin opens a transaction that the test commits; otherwise it is rolled back at the end.
func (s *Env) Begin() *sqlx.Tx {
	s.t.Helper()
	tx, err := s.DB.BeginTxx(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

func (s *Env) AppendIn(tx *sqlx.Tx, published ...events.Event) {
	s.t.Helper()
	if err := s.Out.Append(s.t.Context(), tx, published...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Env) Commit(tx *sqlx.Tx) {
	s.t.Helper()
	if err := tx.Commit(); err != nil {
		s.t.Fatal(err)
	}
}

func EventIDs(published []events.Event) (ids []string) {
	for _, e := range published {
		ids = append(ids, e.ID)
	}
	return ids
}

// IsOrphan makes Orphan the only mandatory type of a relay.
func IsOrphan(eventType string) bool { return eventType == "orphan.born" }

// InsertRaw inserts a row that Append would refuse, and returns the event's id.
func (s *Env) InsertRaw(on, eventType, payload, headers string) string {
	s.t.Helper()
	id := events.NewID()
	s.Exec(`INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers) VALUES ($1,
		'note', $2, $3, $4, $5)`,
		id, on, eventType, payload, headers)
	return id
}

// PlainHeaders are valid headers of a row.
const PlainHeaders = `{"source":"/notes","dataschema":"urn:quadrille:note.taken:1",` +
	`"correlationid":"c","time":"2026-01-02T03:04:05Z"}`

// TooBig returns JSON that exceeds the broker's max_message_size of 1 MiB.
func TooBig() string { return `"` + strings.Repeat("x", 1<<20) + `"` }

// HeldIDs returns the event ids of the held rows h that match a condition, in the order of seq.
func (s *Env) HeldIDs(where string) (ids []string) {
	s.t.Helper()
	if err := s.DB.Select(&ids, `SELECT id::text FROM outbox JOIN outbox_held h USING (seq) WHERE `+
		where+` ORDER BY seq`); err != nil {
		s.t.Fatal(err)
	}
	return ids
}

// QuarantinedSQL is a condition for HeldIDs.
const QuarantinedSQL = `h.kind = 'quarantined'`
