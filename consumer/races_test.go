package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// apply is a transaction of one replica, run again as the runtime does when somebody else was
// first.
func apply(ctx context.Context, db *sqlx.DB, p consumer.Participant[consumertest.State],
	batch ...events.Event) (published []consumer.Result, reruns int, err error) {
	for ; ; reruns++ {
		err = pg.InTx(ctx, db, func(tx *sqlx.Tx) (err error) {
			_, published, err = p.ApplyIn(ctx, tx, batch...)
			return err
		})
		if pg.ClassOf(err) != pg.Retry {
			return published, reruns, err
		}
	}
}

// Two replicas handle two different events about one row that is not there yet, at once: both have
// looked before either has written. The result is as if one had come after the other, in every one
// of a hundred tries.
func TestTwoReplicasAboutOneAbsentRow(t *testing.T) {
	t.Parallel()
	w := consumertest.On(t, "", consumertest.Database(t))
	for n := range 100 {
		order, customer := fmt.Sprint("order ", n), fmt.Sprint("customer ", n)
		var both sync.WaitGroup
		both.Add(2)
		meet := func() func() { return sync.OnceFunc(func() { both.Done(); both.Wait() }) }
		meetPlaced, meetCancelled := meet(), meet()
		p := consumer.Participant[consumertest.State]{Name: consumertest.Service,
			Locks: consumertest.Locks, React: []consumer.Reaction[consumertest.State]{
				consumer.On(func(s *consumertest.State, e events.Of[consumertest.Placed]) (consumer.Effects,
					error) {
					meetPlaced()
					return consumertest.Capture(s, e)
				}),
				consumer.On(func(s *consumertest.State, e events.Of[consumertest.Cancelled]) (consumer.Effects,
					error) {
					meetCancelled()
					return consumertest.Refund(s, e)
				}),
			}}
		var running sync.WaitGroup
		var reruns [2]int
		for i, payload := range []events.Payload{consumertest.Placed{Order: order, Customer: customer,
			Amount: 30}, consumertest.Cancelled{Order: order}} {
			running.Go(func() {
				var err error
				if _, reruns[i], err = apply(t.Context(), w.DB, p, consumertest.Event(consumertest.Shop,
					payload)); err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
		if reruns[0]+reruns[1] != 1 {
			t.Fatalf("try %d: run again %v times, want one of them once", n, reruns)
		}
	}
	if n := w.Int(
		`SELECT count(*) FROM payments WHERE status IN ('cancelled', 'refunded')`); n != 100 {
		t.Errorf("%d of 100 orders are cancelled", n)
	}
	if n := w.Int(`SELECT count(*) FROM payments FULL JOIN accounts USING (customer)
		WHERE coalesce(balance, 0) <> 0 OR (status = 'refunded') <> (balance IS NOT NULL)`); n != 0 {
		t.Errorf("%d customers have paid for a cancelled order", n)
	}
}

// The same through the whole runtime: two replicas, one subject, an account that all events share.
// No update is lost (MON-06), and rows that are taken in opposite order park nothing (SAG-11).
func TestTwoReplicasOnOneBalanceLoseNothing(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	customers := []string{"a", "b", "c", "d"}
	var payloads []events.Payload
	want := map[string]int{}
	for n := range 600 {
		from, to, amount := customers[n%4], customers[(n+1+n/4%3)%4], 1+n%7
		payloads = append(payloads, consumertest.Moved{From: from, To: to, Amount: int64(amount)})
		want[from] -= amount
		want[to] += amount
	}
	first, second := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler()),
		w.Consumer(consumertest.Service, w.Pool(w.Postgres), consumertest.Participant(nil).Handler())
	stopFirst, stopSecond := w.Start(first), w.Start(second)
	w.Consumers(queue, 2)
	w.PublishAs(consumertest.Shop, payloads...)
	w.Becomes(600, inboxCount)
	stopFirst()
	stopSecond()
	w.Drained()
	a, b := first.Stats(), second.Stats()
	if a.Handled == 0 || b.Handled == 0 || a.Delayed+a.Parked+b.Delayed+b.Parked != 0 {
		t.Errorf("stats %+v and %+v", a, b)
	}
	for customer, balance := range want {
		if n := w.Int(`SELECT balance FROM accounts WHERE customer = $1`, customer); n != balance {
			t.Errorf("balance of %s is %d, want %d", customer, n, balance)
		}
	}
}

// Locks are taken in one order, whatever the order of the events: rows by their key, tables by
// their field. So four replicas with opposite batches never deadlock.
func TestLocksAreTakenInOneOrder(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := consumertest.On(t, "", consumertest.Database(t))
	for n := range 10 {
		w.Exec(`INSERT INTO accounts VALUES ($1, 0)`, fmt.Sprint(n))
		w.Exec(`INSERT INTO payments VALUES ($1, $1, 1, 'captured')`, fmt.Sprint(n))
	}
	p := consumertest.Participant(nil)
	var running sync.WaitGroup
	for replica := range 4 {
		random := rand.New(rand.NewPCG(seed, uint64(replica)))
		running.Go(func() {
			for range 150 {
				var batch []events.Event
				for _, n := range random.Perm(10)[:5] {
					key := fmt.Sprint(n)
					batch = append(batch, consumertest.Event(consumertest.Shop, []events.Payload{
						consumertest.Moved{From: key, To: fmt.Sprint(9 - n), Amount: 1},
						consumertest.Placed{Order: key, Customer: key, Amount: 1},
						consumertest.Cancelled{Order: key},
					}[random.IntN(3)]))
				}
				if _, reruns, err := apply(t.Context(), w.DB, p, batch...); err != nil || reruns != 0 {
					t.Errorf("run again %d times, %v", reruns, err)
					return
				}
			}
		})
	}
	running.Wait()
	if n := w.Int(`SELECT sum(balance) FROM accounts`) - w.Int(`SELECT count(*) FROM payments
		WHERE status = 'refunded'`); n != 0 {
		t.Errorf("money is off by %d", n)
	}
}

// Needs that ask for ever more, and rows that cannot be, are errors and no endless loops.
func TestAFaultyParticipantIsAnError(t *testing.T) {
	t.Parallel()
	w := consumertest.On(t, "", consumertest.Database(t))
	type other struct {
		Accounts consumer.Rows[string, struct {
			Name string `db:"name"`
		}] `table:"accounts" key:"customer"`
	}
	e := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o"})
	endless, n := consumertest.Participant(nil), 0
	endless.Locks = func(s *consumertest.State, _ events.Event) { n++; s.Accounts.Lock(fmt.Sprint(n)) }
	if _, _, err := apply(t.Context(), w.DB, endless, e); err == nil || n > 1000 {
		t.Errorf("asked %d times, %v", n, err)
	}
	keyless := consumer.Participant[other]{Name: "x",
		Locks: func(s *other, _ events.Event) { s.Accounts.Lock("a") }}
	err := pg.InTx(t.Context(), w.DB, func(tx *sqlx.Tx) error {
		_, _, err := keyless.ApplyIn(t.Context(), tx, e)
		return err
	})
	if err == nil || errors.Is(err, pg.ErrRaced) {
		t.Errorf("a State without its key column: %v", err)
	}
	panicky := consumertest.Participant(nil)
	panicky.Locks = func(*consumertest.State, events.Event) { panic("boom") }
	if _, _, err := panicky.ApplyTo(consumer.Memory{}, e); err == nil {
		t.Error("a panic of Needs is no error")
	}
	deaf := consumertest.Participant(nil)
	deaf.Locks = func(*consumertest.State, events.Event) {}
	if _, _, err := apply(t.Context(), w.DB, deaf, e); err == nil {
		t.Error("no reaction, no error")
	}
}
