package consumer_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// replica is a bank behind proxies of its own, so that it can crash.
type replica struct {
	*consumertest.Consumer
	amqp, postgres *consumertest.Proxy
	stop           func()
}

func newReplica(w *consumertest.Env, handlers ...consumer.Handler) replica {
	amqpProxy, amqpURL := consumertest.NewProxy(w, w.AMQP)
	postgresProxy, postgresURL := consumertest.NewProxy(w, w.Postgres)
	c := w.Consumer(consumertest.Service, w.Pool(postgresURL), handlers...)
	c.URL = amqpURL
	return replica{c, amqpProxy, postgresProxy, w.Start(c)}
}

// crash cuts the replica off for ever.
func (r replica) crash() {
	r.amqp.Down()
	r.postgres.Down()
}

// CON-01: a replica that dies inside a handler has acknowledged nothing.
func TestACrashBeforeTheCommitLosesNothing(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	r := newReplica(w, consumer.Handle(func(context.Context, *sqlx.Tx,
		events.Of[consumertest.Noted]) error {
		close(entered)
		<-leave
		return nil
	}))
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o", Text: "x"})
	<-entered
	r.crash()
	close(leave)
	r.stop()
	_, stop := w.Bank(note("bank"))
	w.Becomes(1, notesCount)
	stop()
	w.Drained()
}

// CON-02, CON-07: a replica that dies between its commit and its ack has had its effect; the
// event comes again and does nothing, for its inbox row was written with the effect.
func TestACrashAfterTheCommitDoublesNothing(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]consumertest.Cut{"after": consumertest.DieAfter,
		"before": consumertest.DieBefore} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := consumertest.New(t)
			var r replica
			ready := make(chan struct{})
			r = newReplica(w, consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
				e events.Of[consumertest.Noted]) error {
				<-ready
				r.amqp.Mute() // no ack will arrive
				r.postgres.OnCommit(cut, e.Data.Text)
				return insertNote(ctx, tx, "bank", e)
			}))
			close(ready)
			w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o", Text: "the effect"})
			w.Eventually("a commit is cut", func() (bool, string) {
				return r.postgres.Cuts() == 1,
					w.Diagnosis()
			})
			effects := map[consumertest.Cut]int{consumertest.DieAfter: 1, consumertest.DieBefore: 0}[cut]
			w.Becomes(effects, notesCount)
			r.crash()
			r.stop()
			if n := w.Int(inboxCount); n != effects {
				t.Errorf("%d effects, %d inbox rows", effects, n)
			}
			second, stop := w.Bank(note("bank"))
			w.Eventually("it came again", func() (bool, string) {
				s := second.Stats()
				return s.Handled+s.Duplicates == 1, w.Diagnosis()
			})
			stop()
			if s := second.Stats(); s.Duplicates != int64(effects) {
				t.Errorf("stats %+v, want %d duplicates", s, effects)
			}
			if n := w.Int(notesCount); n != 1 {
				t.Errorf("%d effects", n)
			}
			w.Drained()
		})
	}
}

func insertNote(ctx context.Context, tx *sqlx.Tx, name string,
	e events.Of[consumertest.Noted]) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO notes (consumer, event_id, text) VALUES ($1, $2, $3)`,
		name, e.ID, e.Data.Text)
	return err
}

// CON-06: two consumers share one database, and each has its effect.
func TestTwoConsumersShareAnInboxTable(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	stopBank := w.Start(w.Consumer(consumertest.Service, nil, note("bank")))
	published := w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o", Text: "x"})
	w.Becomes(1, `SELECT count(*) FROM inbox WHERE consumer = 'bank'`)
	stopAudit := w.Start(w.Consumer(consumertest.Audit, nil, note("audit")))
	w.Becomes(1, `SELECT count(*) FROM notes WHERE consumer = 'audit' AND event_id = $1`,
		published[0].ID)
	stopBank()
	stopAudit()
	if n := w.Int(notesCount); n != 2 {
		t.Errorf("%d effects, want one of each consumer", n)
	}
}

// CON-08: fifty copies of one event, dealt to ten replicas at once, meet in the inbox.
func TestFiftyCopiesAtOnceHaveOneEffect(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var effects atomic.Int32
	slow := consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[consumertest.Noted]) error {
		effects.Add(1)
		if _, err := tx.ExecContext(ctx, `SELECT pg_sleep(0.05)`); err != nil { // others come meanwhile
			return err
		}
		return insertNote(ctx, tx, "bank", e)
	})
	var replicas []*consumertest.Consumer
	var stops []func()
	for range 10 {
		c := w.Consumer(consumertest.Service, nil, slow)
		replicas, stops = append(replicas, c), append(stops, w.Start(c))
	}
	w.Consumers(topology.QueueOf(consumertest.Service), len(replicas))
	e := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o", Text: "x"})
	w.Publish(slices.Repeat([]rabbit.Message{w.Message(e)}, 50)...)
	w.Eventually("all came", func() (bool, string) {
		var came, at int64
		for _, c := range replicas {
			s := c.Stats()
			came += s.Handled + s.Duplicates
			at += min(1, s.Handled+s.Duplicates)
		}
		return came == 50 && at > 1, fmt.Sprintf("%d came to %d replicas; %s", came, at, w.Diagnosis())
	})
	for _, stop := range stops {
		stop()
	}
	if n := w.Int(notesCount); n != 1 || effects.Load() != 1 {
		t.Errorf("%d effects, %d runs of the handler", n, effects.Load())
	}
	w.Drained()
}

// CON-14: another service that uses an id before its owner does takes nothing away from it; and
// what is refused does not use up an id either.
func TestAnIDBelongsToItsOwner(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	real := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o", Text: "real"})
	stolen := consumertest.Event(consumertest.Stall, consumertest.Opened{Stall: "s"})
	stolen.ID = real.ID
	garbage := w.Message(real)
	garbage.Body = []byte(`{"order":`)
	forged := w.Message(real)
	forged.Exchange, forged.Mandatory = topology.ExchangeOf(consumertest.Stall), false
	w.Bind(topology.QueueOf(consumertest.Service), "order.noted", forged.Exchange)
	w.Publish(w.Message(stolen), garbage, forged)
	_, stop := w.Bank(note("bank"), opened())
	w.Becomes(2, parkedCount)
	w.Becomes(1, inboxCount)
	w.Publish(w.Message(real))
	w.Becomes(1, `SELECT count(*) FROM notes WHERE text = 'real'`)
	w.Becomes(1, `SELECT count(*) FROM notes WHERE text = 'opened'`)
	stop()
	w.Drained()
}

// CON-15: a handler that swallows the error of a statement has an aborted transaction; the commit
// fails, and the event is not lost.
func TestASwallowedStatementErrorIsAFailure(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var once sync.Once
	careless := consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[consumertest.Noted]) error {
		if err := insertNote(ctx, tx, "bank", e); err != nil {
			return err
		}
		once.Do(func() { _, _ = tx.ExecContext(ctx, `SELECT 1/0`) })
		return nil
	})
	c, stop := w.Bank(careless)
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o", Text: "x"})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1 AND due IS NOT NULL`)
	if n := w.Int(notesCount); n != 0 {
		t.Errorf("%d effects of an aborted transaction", n)
	}
	w.Exec(`UPDATE pending SET due = now()`)
	w.Becomes(1, notesCount)
	w.Becomes(0, pendingCount)
	stop()
	if s := c.Stats(); s.Delayed != 1 {
		t.Errorf("stats %+v", s)
	}
	w.Drained()
}
