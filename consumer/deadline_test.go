package consumer_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

const overdueCount = `SELECT count(*) FROM outbox WHERE type = 'payment.overdue'`

// A deadline is delivered once, with two replicas that look for it, and not before its time; also
// when all of them were away at that time.
func TestADeadlineIsDeliveredOnce(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	_, stopFirst := w.Bank()
	_, stopSecond := w.Bank()
	soon := time.Now().Add(500 * time.Millisecond)
	var payloads []events.Payload
	for i := range 50 {
		payloads = append(payloads, consumertest.Reminded{Order: fmt.Sprint("soon ", i), At: soon},
			consumertest.Reminded{Order: fmt.Sprint("later ", i), At: soon.Add(time.Hour)})
	}
	published := w.PublishAs(consumertest.Shop, payloads...)
	w.Becomes(50, overdueCount)
	w.Becomes(50, pendingCount)
	stopFirst()
	stopSecond()
	if n := w.Int(`SELECT count(*) FROM outbox WHERE created_at < $1`, soon); n != 0 {
		t.Errorf("%d came before their time", n)
	}
	if n := w.Int(
		`SELECT count(DISTINCT aggregateid) FROM outbox WHERE aggregateid LIKE 'soon %'`); n != 50 {
		t.Errorf("%d of 50", n)
	}
	if n := w.Int(`SELECT count(*) FROM outbox WHERE headers->>'correlationid' = $1`,
		published[0].CorrelationID); n != 1 {
		t.Errorf("the deadline has lost its correlation")
	}
	w.Exec(`UPDATE pending SET due = now() - interval '1 hour'`) // while nobody runs
	_, stop := w.Bank()
	w.Becomes(100, overdueCount)
	stop()
	if n := w.Int(pendingCount); n != 0 {
		t.Errorf("%d deadlines are left", n)
	}
	w.Drained()
}

// A deadline that is set again is moved, in both directions.
func TestADeadlineThatIsSetAgainIsMoved(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	_, stop := w.Bank()
	hour := time.Now().Add(time.Hour)
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "nearer", At: hour},
		consumertest.Reminded{Order: "farther", At: hour})
	w.Becomes(2, pendingCount)
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "farther", At: hour.Add(time.Hour)})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE key = 'order.expired:farther' AND due > $1`, hour)
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "nearer", At: time.Now()})
	w.Becomes(1, `SELECT count(*) FROM outbox WHERE aggregateid = 'nearer'`)
	w.Becomes(1, pendingCount)
	stop()
	w.Drained()
}

// A reaction may set its own deadline again, and a deadline that failed is a new one when it is set
// again.
func TestADeadlineMaySetItselfAgain(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var n, broken atomic.Int32
	p := consumertest.Participant(nil)
	p.React[len(p.React)-1] = consumer.On(func(_ *consumertest.State,
		e events.Of[consumertest.Expired]) (consumer.Effects, error) {
		if broken.Load() == 1 {
			panic("broken")
		}
		if n.Add(1) < 3 {
			return consumer.Schedule(0, e.Data), nil
		}
		return consumer.Publish(consumertest.Overdue{Order: e.Data.Order}), nil
	})
	c := w.Consumer(consumertest.Service, nil, p.Handler())
	stop := w.Start(c)
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "o", At: time.Now()})
	w.Becomes(1, overdueCount)
	w.Becomes(0, pendingCount)
	if n.Load() != 3 {
		t.Errorf("delivered %d times, want 3", n.Load())
	}
	broken.Store(1)
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "p", At: time.Now()})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1 AND reason LIKE '%broken%'`)
	w.Exec(`UPDATE pending SET attempts = $1, due = now()`, consumer.MaxAttempts-1)
	w.Becomes(1, parkedCount)
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "p", At: time.Now().Add(time.Hour)})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 0 AND due > now()
		AND reason = 'deadline'`)
	broken.Store(0)
	w.Exec(`UPDATE pending SET due = now()`)
	w.Becomes(2, overdueCount)
	stop()
	w.Drained()
}
