package payments_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

func TestACompensationBeforeItsOrderBlocksTheCapture(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rich(1000)
	for _, early := range compensations(events.NewID()) {
		id := early.Subject()
		if published := w.react(early); len(published) != 0 {
			t.Errorf("%s of an unknown order: said %v", early.EventType(), published)
		}
		if published := w.react(placed(id, 100)); len(published) != 0 {
			t.Errorf("order.placed after %s: said %v", early.EventType(), published)
		}
		if p := w.payment(id); p.State != payments.Void || w.balance() != 1000 {
			t.Errorf("after %s: payment %+v, balance %d", early.EventType(), p, w.balance())
		}
	}
}

func TestARefundHappensOnceWhateverAsksForIt(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rich(1000)
	for round := range 5 {
		id := events.NewID()
		w.react(placed(id, 300))
		if w.balance() != 700 {
			t.Fatalf("balance %d after the capture", w.balance())
		}
		requests := compensations(id)
		webtest.Together(t, 9, func(i int) error {
			_, err := w.try(requests[i%len(requests)])
			return err
		})
		if p := w.payment(id); p.State != payments.Refunded || w.balance() != 1000 {
			t.Fatalf("round %d: payment %+v, balance %d", round, p, w.balance())
		}
		if n := w.Int(`SELECT count(*) FROM outbox WHERE type = 'payment.refunded' AND aggregateid = $1`,
			id); n != 1 {
			t.Fatalf("round %d: payment.refunded was said %d times", round, n)
		}
	}
}

// Before a row exists nobody can lock it: whoever inserts it second must see the first.
func TestACaptureAndACancellationAtTheSameTimeChargeNothing(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rich(1000)
	ends := map[payments.PaymentState]int{}
	for range 60 {
		id := events.NewID()
		list := []events.Payload{placed(id, 100), cancelled(id)}
		webtest.Together(t, 2, func(i int) error {
			_, err := w.try(list[i])
			return err
		})
		p := w.payment(id)
		ends[p.State]++
		if p.State != payments.Void && p.State != payments.Refunded || w.balance() != 1000 {
			t.Fatalf("payment %+v, balance %d", p, w.balance())
		}
	}
	t.Logf("ends: %v", ends)
}

func TestDepositsAndCapturesAtTheSameTimeLoseNothing(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rich(1000)
	const each = 25
	webtest.Together(t, 2*each, func(i int) error {
		if i%2 == 0 {
			_, err := w.try(placed(events.NewID(), 10))
			return err
		}
		key := events.NewID()
		for {
			a, err := w.Try(w.Context(), "POST", "/accounts/ada/deposits", money(7), "Idempotency-Key", key)
			switch {
			case err != nil || a.Status == http.StatusCreated:
				return err
			case a.Status != http.StatusServiceUnavailable: // a busy machine; a client repeats the request
				return fmt.Errorf("deposit: %d %s", a.Status, a.Body)
			}
		}
	})
	if got, want := w.balance(), int64(1000+each*7-each*10); got != want {
		t.Errorf("balance %d, want %d", got, want)
	}
	if n := w.Int(`SELECT count(*) FROM payments WHERE state = 'captured'`); n != each {
		t.Errorf("%d captured", n)
	}
}

func TestACaptureIsDeclinedForAReason(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rich(100)
	dollars, eve := placed(events.NewID(), 100), placed(events.NewID(), 100)
	dollars.Currency, eve.Customer = "USD", "eve"
	for reason, order := range map[string]fulfilment.OrderPlaced{
		fulfilment.ReasonNoFunds:   placed(events.NewID(), 101),
		fulfilment.ReasonCurrency:  dollars,
		fulfilment.ReasonNoAccount: eve,
	} {
		published := w.react(order)
		want := fulfilment.PaymentDeclined{OrderID: order.OrderID, Reason: reason}
		if len(published) != 1 || published[0].Data != want {
			t.Errorf("said %+v, want %+v", published, want)
		}
		w.react(cancelled(order.OrderID))
		if p := w.payment(order.OrderID); p.State != payments.Declined || p.Reason != reason {
			t.Errorf("payment %+v", p)
		}
	}
	if w.balance() != 100 {
		t.Errorf("balance %d", w.balance())
	}
	if w.react(placed(events.NewID(), 100)); w.balance() != 0 {
		t.Errorf("balance %d after all of it was captured", w.balance())
	}
}

// What was captured must fit the account when it comes back, whatever is deposited meanwhile.
func TestARefundAlwaysFits(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rich(math.MaxInt64)
	id := events.NewID()
	w.react(placed(id, 100))
	w.Want(w.Post("/accounts/ada/deposits", money(100)), http.StatusUnprocessableEntity, "64 bits")
	w.react(cancelled(id))
	if p := w.payment(id); p.State != payments.Refunded || w.balance() != math.MaxInt64 {
		t.Errorf("payment %+v, balance %d", p, w.balance())
	}
}

func TestTheDatabaseItselfRefusesBrokenBooks(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rich(100)
	id := events.NewID()
	w.react(placed(id, 40))
	for _, statement := range []string{
		`INSERT INTO eventstore (stream, version, id, type, payload, headers, hash)
			SELECT stream, version, id, type, payload, headers, hash FROM eventstore`,
		`INSERT INTO eventstore_streams SELECT * FROM eventstore_streams`,
		`INSERT INTO account_balances_1 VALUES ('eve', 'EUR', 0, -1, false, 1, now())`,
		`INSERT INTO account_balances_1 VALUES ('eve', 'EUR', 1, 2, false, 1, now())`,
		`UPDATE payments SET state = 'pending'`,
		`UPDATE payments SET amount = -40`,
		`UPDATE payments SET amount = 0`,
		`INSERT INTO payments SELECT * FROM payments`,
	} {
		_, err := w.DB.ExecContext(t.Context(), statement)
		refused, ok := err.(*pq.Error)
		if !ok || !strings.HasPrefix(string(refused.Code), "23") {
			t.Errorf("%s: %v, want an integrity violation", statement, err)
		}
	}
	if w.balance() != 60 || w.payment(id).Amount != 40 {
		t.Errorf("balance %d, payment %+v", w.balance(), w.payment(id))
	}
}

// Every order of arrival, each event twice: the same money.
func TestEveryOrderOfArrivalChargesTheSame(t *testing.T) {
	t.Parallel()
	const id, funds, price = "0190a0e0-0000-7000-8000-000000000001", 1000, 300
	begin := consumer.Memory{}
	if err := begin.Put("account", "ada", payments.Account{Customer: "ada", Currency: "EUR",
		Deposited: funds, Balance: funds}); err != nil {
		t.Fatal(err)
	}
	check := func(charged int64) func(m consumer.Memory, published []events.Payload) error {
		return func(m consumer.Memory, published []events.Payload) error {
			var a payments.Account
			if _, err := m.Row("account", "ada", &a); err != nil {
				return err
			}
			n := webtest.Count(published)
			captured, refunded := n["payment.captured"], n["payment.refunded"]
			if a.Balance != funds-charged || captured > 1 || int64(captured-refunded)*price != charged ||
				n["payment.declined"] > 0 {
				return fmt.Errorf("balance %d, said %v, want %d charged", a.Balance, n, charged)
			}
			return nil
		}
	}
	order := placed(id, price)
	full := []events.Payload{order, order}
	if n := webtest.Permute(t, payments.Participant.Reactor(), begin, full, check(price)); n != 1 {
		t.Errorf("%d orders", n)
	}
	for _, c := range compensations(id) {
		full = append(full, c, c)
	}
	if n := webtest.Permute(t, payments.Participant.Reactor(), begin, full, check(0)); n != 2520 {
		t.Errorf("%d orders of arrival, want 8!/2⁴", n)
	}
}
