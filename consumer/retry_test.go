package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/engine"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/topology"
)

// The customers whose orders make trouble, and what the reason must say of them.
var poisons = map[string]struct {
	reason string
	parked bool // at once
}{
	"panics":         {"boom", false},
	"unasked":        {"was not locked", false},
	"needs panics":   {"needs boom", false},
	"undeclared":     {"does not declare", true},
	"another's word": {"does not declare", true},
	"says nonsense":  {"has no subject", true},
	"cannot be said": {"negative amount", false},
}

// poisonous is a bank that the poisons hurt until it is healed.
func poisonous(healed *atomic.Bool) consumer.Handler {
	p := consumertest.Participant(func(s *consumertest.State,
		e events.Of[consumertest.Placed]) (consumer.Effects, error) {
		switch customer := e.Data.Customer; {
		case healed.Load():
		case customer == "panics":
			panic("boom")
		case customer == "unasked":
			s.Accounts.Get("nobody")
		case customer == "undeclared":
			return consumer.Publish(consumertest.Undeclared{Order: e.Data.Order}), nil
		case customer == "another's word": // the bank says it, but not about this
			return consumer.Publish(consumertest.Refunded{Order: e.Data.Order}), nil
		case customer == "says nonsense":
			return consumer.Publish(consumertest.Captured{}), nil
		case customer == "cannot be said":
			return consumer.Publish(consumertest.Captured{Order: e.Data.Order, Amount: -1}), nil
		}
		return consumer.Effects{}, nil
	})
	needs := p.Locks
	p.Locks = func(s *consumertest.State, e events.Event) {
		if d, ok := e.Data.(consumertest.Placed); ok && d.Customer == "needs panics" && !healed.Load() {
			panic("needs boom")
		}
		needs(s, e)
	}
	return p.Handler()
}

// A poison in a batch harms itself only: it waits with one attempt spent and its bytes, or is
// parked, and takes effect once when its cause is healed.
func TestAPoisonHarmsItselfOnly(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var payloads []events.Payload
	for i := range 200 - len(poisons) {
		payloads = append(payloads, consumertest.Moved{From: "f", To: fmt.Sprint("t", i%10), Amount: 1})
	}
	for customer := range poisons { // every 20th, all in the lane of subject f
		at := (len(payloads) - (200 - len(poisons))) * 20
		payloads = append(payloads[:at],
			append([]events.Payload{consumertest.Placed{Order: "f", Customer: customer, Amount: 7}},
				payloads[at:]...)...)
	}
	published := w.PublishAs(consumertest.Shop, payloads...)
	var healed atomic.Bool
	c := w.Consumer(consumertest.Service, nil, poisonous(&healed))
	stop := w.Start(c)
	// a busy machine may have tried again
	w.Becomes(len(poisons), `SELECT count(*) FROM pending WHERE attempts >= 1`)
	w.Becomes(-(200 - len(poisons)), `SELECT coalesce(sum(balance), 0) FROM accounts
		WHERE customer = 'f'`)
	if n := w.Int(`SELECT count(*) FROM payments`) + w.Int(outboxCount); n != 0 {
		t.Errorf("a failed event left %d rows", n)
	}
	w.Becomes(200, inboxCount)
	w.Eventually("all are counted", func() (bool, string) { // which comes after the rows
		s := c.Stats()
		return s.Handled == int64(200-len(poisons)) && s.Delayed+s.Parked >= int64(len(poisons)),
			fmt.Sprintf("stats %+v", s)
	})
	for _, e := range published {
		if d, ok := e.Data.(consumertest.Placed); ok {
			expectPending(w, e, poisons[d.Customer].reason, poisons[d.Customer].parked)
		}
	}
	healed.Store(true)
	w.Exec(`UPDATE pending SET due = now()`)
	w.Becomes(0, pendingCount)
	stop()
	w.Drained()
	// they are all about order f, the first counts
	if n := w.Int(`SELECT count(*) FROM payments`); n != 1 {
		t.Errorf("%d payments", n)
	}
}

func expectPending(w *consumertest.Env, e events.Event, reason string, parked bool) {
	w.Helper()
	p, err := inbox.New(w.DB, consumertest.Service).Find(w.Context(), e.ID)
	if err != nil {
		w.Error(err)
		return
	}
	if !strings.Contains(p.Reason, reason) || (p.Due == nil) != parked ||
		p.Owner != consumertest.Shop || !strings.Contains(string(p.Body), "customer") {
		w.Errorf("%v: waits as %+v, want a reason with %q, parked %v", e.Data, p, reason, parked)
	}
}

// An event that keeps failing is tried MaxAttempts times, after growing pauses, and then parked; a
// copy of it that comes meanwhile is a duplicate.
func TestAFailingEventIsParkedInTheEnd(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var tries atomic.Int32
	c, stop := w.Bank(consumer.Handle(func(context.Context, *sqlx.Tx,
		events.Of[consumertest.Noted]) error {
		return fmt.Errorf("try %d", tries.Add(1))
	}))
	published := w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o"})
	for n := 1; n < consumer.MaxAttempts; n++ {
		w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = $1 AND reason = 'try ' || $1::text
			AND due - updated_at BETWEEN least(300, 2 ^ ($1 - 1)) * interval '0.5 second' AND least(300,
				2 ^ ($1 - 1)) * interval '1 second'`, n)
		if n == 2 {
			w.Publish(w.Message(published[0]))
			w.Eventually("a duplicate", func() (bool, string) {
				return c.Stats().Duplicates == 1,
					w.Diagnosis()
			})
		}
		w.Exec(`UPDATE pending SET due = now()`)
	}
	w.Becomes(1, parkedCount)
	stop()
	w.Drained()
	if n := tries.Load(); n != consumer.MaxAttempts {
		t.Errorf("tried %d times", n)
	}
	if s := c.Stats(); s.Delayed != consumer.MaxAttempts-1 || s.Parked != 1 || s.Handled != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A try tells why an event fails, or what it would say, and changes nothing.
func TestATryChangesNothing(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var healed atomic.Bool
	c := w.Consumer(consumertest.Service, nil, poisonous(&healed))
	stop := w.Start(c)
	e := w.PublishAs(consumertest.Shop, consumertest.Placed{Order: "o", Customer: "panics",
		Amount: 7})[0]
	w.Becomes(1, pendingCount)
	stop()
	w.Exec(`UPDATE pending SET due = NULL`)
	w.Exec(`INSERT INTO accounts VALUES ('panics', 10)`)
	p, err := inbox.New(w.DB, consumertest.Service).Find(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	if effects, err := c.DryRun(t.Context(), p); err == nil ||
		!strings.Contains(err.Error(), "boom") {
		t.Errorf("a poison: effects %v, error %v", effects, err)
	}
	healed.Store(true)
	effects, err := c.DryRun(t.Context(), p)
	if err != nil || len(effects.Publish) != 1 ||
		effects.Publish[0].EventType() != "payment.captured" {
		t.Errorf("healed: effects %v, error %v", effects, err)
	}
	if n := w.Int(`SELECT count(*) FROM payments`) + w.Int(outboxCount); n != 0 ||
		w.Int(parkedCount) != 1 {
		t.Errorf("%d rows of an effect, %d parked", n, w.Int(parkedCount))
	}
	calling := w.Consumer(consumertest.Service, nil,
		consumer.Call(func(context.Context, events.Of[consumertest.Placed]) (events.Payload, error) {
			t.Error("the outside world was called")
			return nil, nil
		}))
	if _, err := calling.DryRun(t.Context(), p); !errors.Is(err, engine.ErrCallNotRun) {
		t.Errorf("a call: %v", err)
	}
}

// Permanent parks at once.
func TestPermanentParksAtOnce(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	c, stop := w.Bank(consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[consumertest.Noted]) error {
		return errors.Join(insertNote(ctx, tx, "bank", e),
			fmt.Errorf("note: %w", consumer.Permanent(errors.New("no such order"))))
	}))
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND attempts = 1
		AND reason LIKE 'note: no such order'`)
	stop()
	w.Drained()
	if s := c.Stats(); s.Parked != 1 || w.Int(notesCount) != 0 {
		t.Errorf("stats %+v, %d effects", s, w.Int(notesCount))
	}
}

// A retry that waits for two replicas takes effect once.
func TestARetryTakesEffectOnceOnTwoReplicas(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var failed atomic.Int32
	flaky := consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[consumertest.Noted]) error {
		if failed.Add(1) <= 40 {
			return errors.New("not yet")
		}
		// So that the other replica looks while this one holds them.
		if _, err := tx.ExecContext(ctx, `SELECT pg_sleep(0.02)`); err != nil {
			return err
		}
		return insertNote(ctx, tx, "bank", e)
	})
	first, second := w.Consumer(consumertest.Service, nil, flaky), w.Consumer(consumertest.Service,
		nil, flaky)
	for i := range 40 {
		w.PublishAs(consumertest.Shop, consumertest.Noted{Order: fmt.Sprint("o", i)})
	}
	stopFirst, stopSecond := w.Start(first), w.Start(second)
	w.Eventually("all came", func() (bool, string) {
		return w.Int(`SELECT count(*) FROM notes`)+w.Int(pendingCount) == 40 &&
			w.Int(inboxCount) == 40, w.Diagnosis()
	})
	w.Exec(`UPDATE pending SET due = now()`)
	w.Becomes(0, pendingCount)
	stopFirst()
	stopSecond()
	if n := w.Int(`SELECT count(DISTINCT event_id) FROM notes`); n != 40 || w.Int(notesCount) != 40 {
		t.Errorf("%d effects of %d events", w.Int(notesCount), n)
	}
	w.Drained()
}

// An event that a program of an older version does not know by its binding is acknowledged.
func TestTwoHandlersForOneTypeAreRefused(t *testing.T) {
	t.Parallel()
	c := &consumertest.Consumer{Consumer: consumer.Consumer{Name: consumertest.Service,
		Topology: topology.Topology{}, Handlers: []consumer.Handler{note("a"), note("b")}}}
	defer func() {
		if published, _ := recover().(string); !strings.Contains(published,
			"two handlers for order.noted") {
			t.Errorf("it says %q", published)
		}
	}()
	c.Run(t.Context())
}
