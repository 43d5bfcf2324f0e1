package consumer_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// While a new release is rolled out its queue is bound to what only it reacts to, and the old
// replicas take from the same queue: what they do not know waits for one that does.
func TestEventThatOnlyAnotherReleaseKnowsIsKept(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	stop := w.Start(w.Consumer(consumertest.Service, nil, note("bank")))
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"}, consumertest.Noted{Order: "o"})
	w.Becomes(1, notesCount)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE type = 'order.asked' AND due IS NOT NULL
		AND attempts = 0`)
	stop()
	w.Drained()
	if n := w.Int(inboxCount); n != 2 {
		t.Errorf("%d inbox rows", n)
	}
	answer := consumer.Call(func(_ context.Context, e events.Of[consumertest.Asked]) (events.Payload,
		error) {
		return consumertest.Answered{Order: e.Data.Order}, nil
	})
	stop = w.Start(w.Consumer(consumertest.Service, nil, note("bank"), answer))
	w.Becomes(1, `SELECT count(*) FROM outbox WHERE type = 'question.answered'`)
	w.Becomes(0, pendingCount)
	stop()
}

// Deadlines, retries and calls of a newer release stay as they are while only an old one looks for
// what is due.
func TestOldReleaseLeavesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.Exec(`INSERT INTO pending (consumer, owner, key, type, exchange, routing_key, attributes, body,
		attempts, due, reason)
		VALUES ('bank', 'bank', 'a', 'order.reviewed', '', '', '{}', '{}', 0, now() - interval '1 hour',
			'deadline')`)
	c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler())
	var reported logged
	c.Log = zerolog.New(&reported)
	stop := w.Start(c)
	w.Eventually("somebody is told", func() (bool, string) {
		return strings.Contains(reported.String(), `["order.reviewed"]`), reported.String()
	})
	// it is due after the other
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "o", At: time.Now().Add(-time.Minute)})
	w.Becomes(1, overdueCount)
	stop()
	if n := w.Int(
		`SELECT count(*) FROM pending WHERE key = 'a' AND attempts = 0 AND due < now()`); n != 1 {
		t.Error("the old release has touched it")
	}
}

// logged is a log that is read while it is written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A deadline to which there is no reaction would never come: it is refused where it is set.
func TestDeadlineWithoutAReactionIsRefused(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	p := consumertest.Participant(nil)
	p.React = p.React[:len(p.React)-1] // without what expires
	stop := w.Start(w.Consumer(consumertest.Service, nil, p.Handler()))
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "o", At: time.Now()})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL
		AND reason LIKE '%order.expired, to which it has no reaction%'`)
	stop()
}

// What the topology does not declare is refused in every way in which an event comes about: a
// handler with SQL of its own, a deadline, and a command that nothing has caused; so is a deadline
// that no command of the topology names.
func TestWhatIsNotDeclaredIsRefusedWhereverItComesFrom(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	p := consumertest.Participant(nil)
	p.React[len(p.React)-1] = consumer.On(func(_ *consumertest.State,
		e events.Of[consumertest.Expired]) (consumer.Effects, error) {
		return consumer.Publish(consumertest.Refunded{Order: e.Data.Order}), nil // not at a deadline
	})
	var c *consumertest.Consumer
	c = w.Consumer(consumertest.Service, nil, p.Handler(),
		consumer.Handle(func(ctx context.Context, tx *sqlx.Tx, e events.Of[consumertest.Noted]) error {
			// not about a note
			return c.Execute(ctx, tx, consumer.Publish(consumertest.Captured{Order: e.Data.Order}))
		}))
	stop := w.Start(c)
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "o"}, consumertest.Noted{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND type = 'order.noted'
		AND reason LIKE '%may not publish payment.captured on order.noted%'`)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND type = 'order.expired'
		AND reason LIKE '%may not publish payment.refunded on order.expired%'`)
	stop()
	execute := func(c *consumertest.Consumer, e consumer.Effects) error {
		return pg.InTx(t.Context(), w.DB, func(tx *sqlx.Tx) error {
			return c.Execute(t.Context(), tx, e)
		})
	}
	if err := execute(c, consumer.Publish(consumertest.Captured{Order: "o"})); err == nil ||
		!strings.Contains(err.Error(), "no command of its topology declares it") {
		t.Errorf("a command that says what only a reaction may: %v", err)
	}
	if err := execute(c, consumer.Publish(consumertest.Overdue{Order: "o"})); err != nil {
		t.Errorf("a command that says what it declares: %v", err)
	}
	unnamed := w.Consumer(consumertest.Service, nil, p.Handler())
	unnamed.Topology = consumertest.Topology()
	unnamed.Topology.Services[2].Commands = nil
	if err := execute(unnamed, consumer.Schedule(time.Hour,
		consumertest.Expired{Order: "o"})); err == nil ||
		!strings.Contains(err.Error(), "give the command of its topology") {
		t.Errorf("a deadline that no command names: %v", err)
	}
}

// A deadline that an older release has set is read through the upcasters as well.
func TestDeadlineOfAnOlderMajorIsUpcast(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.Exec(`INSERT INTO pending (consumer, owner, key, type, exchange, routing_key, attributes, body,
		attempts, due, reason)
		VALUES ('bank', 'bank', 'a', 'order.noted', '', '',
			'{"type":"order.noted","subject":"o","dataschema":"urn:quadrille:order.noted:1"}',
			'{"order":"o","text":"old"}', 0, now(), 'deadline')`)
	_, stop := w.Bank(consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[remarked]) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO notes (consumer, event_id, text) VALUES ('bank', $1,
			$2)`, events.NewID(), e.Data.Words)
		return err
	}))
	w.Becomes(1, `SELECT count(*) FROM notes WHERE text = 'old'`)
	stop()
}
