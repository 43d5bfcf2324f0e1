package inventory_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

func TestACompensationBeforeItsOrderBlocksTheReservation(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.receive("teapot", 3)
	for _, early := range compensations(events.NewID()) {
		id := early.Subject()
		if published := w.react(early); len(published) != 0 {
			t.Errorf("%s of an unknown order: said %v", early.EventType(), published)
		}
		for _, late := range []events.Payload{placed(id, line("teapot", 1)), captured(id),
			fulfilment.OrderConfirmed{OrderID: id}} {
			if published := w.react(late); len(published) != 0 {
				t.Errorf("%s after %s: said %v", late.EventType(), early.EventType(), published)
			}
		}
		if s := w.stock("teapot"); w.state(id) != inventory.Void || s.OnHand != 3 {
			t.Errorf("after %s: reservation %s, stock %+v", early.EventType(), w.state(id), s)
		}
	}
}

func TestAnOrderIsReservedWhollyOrNotAtAll(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.receive("cup", 5)
	w.receive("spoon", 5)
	w.receive("teapot", 1)
	id := events.NewID()
	published := w.react(placed(id, line("cup", 2), line("spoon", 5), line("teapot", 2)), captured(id))
	want := fulfilment.StockRejected{OrderID: id, Reason: fulfilment.ReasonOutOfStock + ": teapot"}
	if len(published) != 1 || published[0].Data != want {
		t.Errorf("said %+v, want %+v", published, want)
	}
	w.react(compensations(id)...)
	for _, sku := range []string{"cup", "spoon", "teapot"} {
		if s := w.stock(sku); s.Reserved != 0 || s.OnHand != s.Received {
			t.Errorf("stock %+v", s)
		}
	}
	// The same article on two lines counts together.
	id = events.NewID()
	w.react(placed(id, line("cup", 3), line("cup", 3)), captured(id))
	if s := w.stock("cup"); s.OnHand != 5 || w.state(id) != inventory.Rejected {
		t.Errorf("reservation %s, stock %+v", w.state(id), s)
	}
	id = events.NewID()
	w.react(placed(id, line("cup", 3), line("cup", 2)), captured(id))
	if s := w.stock("cup"); s.OnHand != 0 || s.Reserved != 5 || w.state(id) != inventory.Reserved {
		t.Errorf("reservation %s, stock %+v", w.state(id), s)
	}
}

func TestTheLastPieceGoesToOneOfAHundred(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.receive("teapot", 1)
	const orders = 100
	webtest.Together(t, orders, func(int) error {
		id := events.NewID()
		if _, err := w.try(placed(id, line("teapot", 1))); err != nil {
			return err
		}
		_, err := w.try(captured(id))
		return err
	})
	if s := w.stock("teapot"); s != (inventory.Stock{SKU: "teapot", Received: 1, Reserved: 1}) {
		t.Errorf("stock %+v", s)
	}
	reserved := w.Int(`SELECT count(*) FROM reservations WHERE state = 'reserved'`)
	rejected := w.Int(`SELECT count(*) FROM reservations WHERE state = 'rejected'`)
	if reserved != 1 || rejected != orders-1 {
		t.Errorf("%d reserved, %d rejected", reserved, rejected)
	}
	if n := w.Int(`SELECT count(*) FROM outbox WHERE type = 'stock.reserved'`); n != 1 {
		t.Errorf("stock.reserved was said %d times", n)
	}
}

// Opposite orders of lines must not become opposite orders of locks.
func TestOrdersOfManyArticlesDoNotDeadlock(t *testing.T) {
	t.Parallel()
	w := start(t)
	var there, back []fulfilment.Line
	for i := range 20 {
		sku := fmt.Sprintf("sku-%02d", i)
		w.receive(sku, 1000)
		there, back = append(there, line(sku, 1)), append([]fulfilment.Line{line(sku, 1)}, back...)
	}
	before := w.Int(`SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`)
	webtest.Together(t, 40, func(i int) error {
		id, lines := events.NewID(), there
		if i%2 == 1 {
			lines = back
		}
		_, err := w.try(placed(id, lines...), captured(id))
		return err
	})
	if n := w.Int(`SELECT count(*) FROM stock WHERE reserved = 40 AND on_hand = 960`); n != 20 {
		t.Errorf("%d of 20 articles have 40 reserved", n)
	}
	if n := w.Int(
		`SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`) - before; n != 0 {
		t.Errorf("%d deadlocks", n)
	}
}

func TestACommitBeforeItsReservationIsKept(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.receive("teapot", 3)
	id := events.NewID()
	w.react(fulfilment.OrderConfirmed{OrderID: id})
	w.react(captured(id))
	if published := w.react(placed(id, line("teapot", 2))); len(published) != 1 ||
		published[0].Data.EventType() != "stock.reserved" {
		t.Errorf("said %+v", published)
	}
	if s := w.stock("teapot"); s.Committed != 2 || s.Reserved != 0 || s.OnHand != 1 ||
		w.state(id) != inventory.Committed {
		t.Errorf("reservation %s, stock %+v", w.state(id), s)
	}
	w.react(fulfilment.OrderConfirmed{OrderID: id})
	w.react(compensations(id)...)
	if s := w.stock("teapot"); s.Committed != 2 || s.OnHand != 1 {
		t.Errorf("what was committed did not stay: %+v", s)
	}
}

func TestAReleaseHappensOnce(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.receive("teapot", 3)
	id := events.NewID()
	w.react(placed(id, line("teapot", 2)), captured(id))
	requests := compensations(id)
	webtest.Together(t, 8, func(i int) error {
		_, err := w.try(requests[i%len(requests)])
		return err
	})
	if s := w.stock("teapot"); s.OnHand != 3 || s.Reserved != 0 || w.state(id) != inventory.Released {
		t.Errorf("reservation %s, stock %+v", w.state(id), s)
	}
	if n := w.Int(`SELECT count(*) FROM outbox WHERE type = 'stock.released'`); n != 1 {
		t.Errorf("stock.released was said %d times", n)
	}
}

func TestTheDatabaseItselfRefusesBrokenStock(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.receive("teapot", 3)
	id := events.NewID()
	w.react(placed(id, line("teapot", 2)), captured(id))
	for _, statement := range []string{
		`UPDATE stock SET on_hand = on_hand - 2, reserved = reserved + 2`,
		`UPDATE stock SET on_hand = on_hand + 3, reserved = reserved - 3`,
		`UPDATE stock SET on_hand = on_hand + 1, committed = committed - 1`,
		`UPDATE stock SET on_hand = on_hand + 1`,
		`UPDATE stock SET received = received - 1`,
		`UPDATE reservations SET state = 'sold'`,
		`INSERT INTO reservations SELECT * FROM reservations`,
		`INSERT INTO stock SELECT * FROM stock`,
	} {
		_, err := w.DB.ExecContext(t.Context(), statement)
		refused, ok := err.(*pq.Error)
		if !ok || !strings.HasPrefix(string(refused.Code), "23") {
			t.Errorf("%s: %v, want an integrity violation", statement, err)
		}
	}
	if s := w.stock("teapot"); s != (inventory.Stock{SKU: "teapot", Received: 3, OnHand: 1,
		Reserved: 2}) {
		t.Errorf("stock %+v", s)
	}
}

// Every order of arrival, each event twice: the same stock.
func TestEveryOrderOfArrivalLeavesTheSameStock(t *testing.T) {
	t.Parallel()
	const id = "0190a0e0-0000-7000-8000-000000000001"
	begin := consumer.Memory{}
	for _, sku := range []string{"cup", "teapot"} {
		if err := begin.Put("stock", sku, inventory.Stock{SKU: sku, Received: 5, OnHand: 5}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(state inventory.ReservationState, committed int64) func(m consumer.Memory,
		published []events.Payload) error {
		return func(m consumer.Memory, published []events.Payload) error {
			for sku, quantity := range map[string]int64{"cup": 2, "teapot": 1} {
				want := inventory.Stock{SKU: sku, Received: 5, OnHand: 5 - committed*quantity,
					Committed: committed * quantity}
				var got inventory.Stock
				if _, err := m.Row("stock", sku, &got); err != nil || got != want {
					return fmt.Errorf("stock %+v, want %+v: %v", got, want, err)
				}
			}
			var r inventory.Reservation
			n := webtest.Count(published)
			if _, err := m.Row("reservations", id, &r); err != nil || state != "" && r.State != state {
				return fmt.Errorf("reservation %+v: %v", r, err)
			}
			if reserved := n["stock.reserved"]; reserved > 1 ||
				int64(reserved-n["stock.released"]) != committed || n["stock.rejected"] > 0 {
				return fmt.Errorf("said %v", n)
			}
			return nil
		}
	}
	order, paid, confirmed := placed(id, line("teapot", 1), line("cup", 2)), captured(id),
		fulfilment.OrderConfirmed{OrderID: id}
	well := []events.Payload{order, order, paid, paid, confirmed, confirmed}
	if n := webtest.Permute(t, inventory.Participant.Reactor(), begin, well,
		check(inventory.Committed, 1)); n != 90 {
		t.Errorf("%d orders of arrival, want 6!/2³", n)
	}
	ill := []events.Payload{order, order, paid, paid}
	for _, c := range compensations(id) {
		ill = append(ill, c, c)
	}
	if n := webtest.Permute(t, inventory.Participant.Reactor(), begin, ill, check("", 0)); n != 2520 {
		t.Errorf("%d orders of arrival, want 8!/2⁴", n)
	}
}
