// Package outboxtest is the database, the broker and the events that the tests of the relay play
// with.
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
	"github.com/quadrille-go/quadrille/internal/devstack"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/postgres"
)

// Note is the event of these tests: note N about aggregate On.
type Note struct {
	On   string `json:"on"`
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

func (Note) EventType() string { return "note.taken" }
func (n Note) Subject() string { return n.On }

// Orphan is an event of a type that nobody is bound for, unless a test says so.
type Orphan struct {
	On string `json:"on"`
}

func (Orphan) EventType() string { return "orphan.born" }
func (o Orphan) Subject() string { return o.On }

// Exchange is where the relays publish.
const Exchange = "notes.events"

// Env is a database with an outbox, a vhost with an exchange and a quorum queue, and relays.
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

// New returns a stage on the shared servers.
func New(t testing.TB) *Env {
	t.Helper()
	return NewOn(t, database(t))
}

// NewWithoutBroker returns a stage without a broker, for what happens in the database alone.
func NewWithoutBroker(t testing.TB) *Env {
	t.Helper()
	return (&Env{}).WithDatabase(t, database(t))
}

func database(t testing.TB) string {
	t.Helper()
	return devstack.Database(t, migrationsKey(t), func(ctx context.Context, url string) error {
		return postgres.Migrate(ctx, url, "outbox", outbox.Migrations())
	})
}

// NewOn returns a stage on a database that has the migrations, and on the shared broker.
func NewOn(t testing.TB, database string) *Env {
	t.Helper()
	s := (&Env{Queue: "notes.in"}).WithDatabase(t, database)
	s.AMQP, s.Manage = devstack.Vhost(t)
	s.Admin = s.Channel()
	s.DeclareExchange()
	s.DeclareQueue(s.Queue, nil)
	s.Bind(s.Queue, "note.taken")
	return s
}

// WithDatabase returns the same stage with another database.
func (s *Env) WithDatabase(t testing.TB, database string) *Env {
	t.Helper()
	moved := *s
	moved.t, moved.Database, moved.DB = t, database, OpenDB(t, database)
	moved.Out = outbox.New(moved.DB)
	return &moved
}

// DeclareExchange declares the one that the relays publish on.
func (s *Env) DeclareExchange() {
	s.t.Helper()
	if err := s.Admin.ExchangeDeclare(Exchange, "topic", true, false, false, false, nil); err != nil {
		s.t.Fatal(err)
	}
}

// OpenDB opens a pool until the test ends.
func OpenDB(t testing.TB, url string) *sqlx.DB {
	t.Helper()
	db, err := postgres.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// migrationsKey changes with the migrations.
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

// Channel opens a connection of the test's own.
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

// Relay returns a relay of this outbox that logs into the test.
func (s *Env) Relay(out *outbox.Outbox) *outbox.Relay {
	return &outbox.Relay{
		Outbox: out, URL: s.AMQP, Database: s.Database, Name: "notes", Exchange: Exchange,
		Log: zerolog.New(zerolog.NewTestWriter(s.t)).Level(zerolog.InfoLevel),
	}
}

// Run runs a relay until the test ends or the returned function is called.
func (s *Env) Run(r *outbox.Relay) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	s.t.Cleanup(stop)
	return stop
}

// Event makes an event of a payload.
func Event(p events.Payload) events.Event {
	return events.Cause(events.Event{}, "/notes", time.Now(), p)
}

// AppendNotes appends notes about one aggregate, in one transaction, and returns their ids.
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

// Receive takes n messages off a queue and acknowledges them; what is delivered beyond n goes back
// to it.
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

// Consume takes messages off a queue one after another and acknowledges them. Its channel stays open
// until the end of the test: a broker that is busy forgets the last acknowledgements when the
// channel closes, and would deliver again what a test counts.
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
			s.t.Fatalf("%s: nothing came for %s after %d messages\n%s", queue, Timeout, got, s.Diagnose())
		}
		return amqp.Delivery{}
	}, func() { cancelConsumer(ch, deliveries) }
}

// cancelConsumer ends a consumer and returns what it was sent in excess. An error means that the channel
// has ended, and then the broker takes it back by itself.
func cancelConsumer(ch *amqp.Channel, deliveries <-chan amqp.Delivery) {
	if ch.Cancel("test", false) != nil {
		return
	}
	for d := range deliveries {
		_ = d.Nack(false, true)
	}
	_ = ch.Qos(0, 0, false) // its answer comes when the broker has read all that
}

// ExpectNoMore fails the test when anything is in a queue beside what has been taken off it: a
// marker that the relays publish comes next.
func (s *Env) ExpectNoMore(queue string) {
	s.t.Helper()
	marker := s.AppendNotes("marker", 1)
	if got := s.Receive(queue, 1); got[0].MessageId != marker[0] {
		s.t.Errorf("%s came in excess: %s", got[0].MessageId, got[0].Body)
	}
}

// Await takes messages off a queue until each of the ids has come, in any order and any number.
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

// Timeout is how long a test waits for what must come; only a failing test waits that long.
const Timeout = 2 * time.Minute

// WaitFor polls a condition and fails the test with a diagnosis when it does not come true.
func (s *Env) WaitFor(what string, f func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(Timeout)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(deadline) {
			s.t.Fatalf("not within %s: %s\n%s", Timeout, what, s.Diagnose())
		}
		<-tick.C
	}
}

// AwaitSettled waits until the relay has seen the confirms of all that was appended. Before a link holds
// confirms back, this keeps that of an earlier event out of them: the next would not be published.
func (s *Env) AwaitSettled() {
	s.t.Helper()
	s.WaitFor("all is settled", func() bool {
		return s.Count(`SELECT count(*) FROM outbox, outbox_cursor
			WHERE NOT pg_visible_in_snapshot(outbox.txid, a)`) == 0
	})
}

// Diagnose says where the relay stands.
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

// Depth is how many messages are ready in a queue, or 0 while the queue is too busy to tell.
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

// Begin opens a transaction that the test commits by hand.
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
func IsOrphan(eventType string) bool { return eventType == "orphan.born" }

// InsertRaw inserts a row that Append would refuse and returns its id.
func (s *Env) InsertRaw(on, eventType, payload, headers string) string {
	s.t.Helper()
	id := events.NewID()
	s.Exec(`INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers) VALUES ($1,
		'note', $2, $3, $4, $5)`,
		id, on, eventType, payload, headers)
	return id
}

const PlainHeaders = `{"source":"/notes","dataschema":"urn:quadrille:note.taken:1",` +
	`"correlationid":"c","time":"2026-01-02T03:04:05Z"}`

// TooBig is JSON that exceeds the broker's max_message_size of 1 MiB.
func TooBig() string { return `"` + strings.Repeat("x", 1<<20) + `"` }

// HeldIDs are the ids of the rows that are held, of those that match the condition.
func (s *Env) HeldIDs(where string) (ids []string) {
	s.t.Helper()
	if err := s.DB.Select(&ids, `SELECT id::text FROM outbox JOIN outbox_held h USING (seq) WHERE `+
		where+` ORDER BY seq`); err != nil {
		s.t.Fatal(err)
	}
	return ids
}

const QuarantinedSQL = `h.kind = 'quarantined'`
