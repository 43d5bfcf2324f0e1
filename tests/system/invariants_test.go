package system_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/topology"
)

// databases opens the four databases, by service.
func (w *chaosRun) databases() map[string]*sqlx.DB {
	open := map[string]*sqlx.DB{}
	for _, s := range topology.Fulfilment().Services {
		db, err := postgres.Open(w.stack.DatabaseURL(s.Name))
		if err != nil {
			w.t.Fatal(err)
		}
		open[s.Name] = db
	}
	return open
}

// settle waits until nothing is under way any more: every order has ended, every outbox is drained,
// and everybody has handled what they hear.
func (w *chaosRun) settle(ctx context.Context, limit time.Duration) {
	open := w.databases()
	defer closeAll(open)
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		moving := w.moving(ctx, open)
		if moving == "" {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("not at rest after %s: %s", limit, moving)
		}
	}
}

func closeAll(open map[string]*sqlx.DB) {
	for _, db := range open {
		_ = db.Close()
	}
}

// moving says what is still under way.
func (w *chaosRun) moving(ctx context.Context, open map[string]*sqlx.DB) string {
	var placed int
	if err := open["orders"].GetContext(ctx, &placed, `SELECT count(*) FROM orders
		WHERE state = 'placed'`); err != nil || placed > 0 {
		return fmt.Sprintf("%d orders are placed (%v)", placed, err)
	}
	var outside int
	err1 := open["payments"].GetContext(ctx, &outside, `SELECT count(*) FROM payments
		WHERE state IN ('charging', 'unwanted', 'refunding')`)
	if err1 != nil || outside > 0 {
		return fmt.Sprintf("%d payments wait for the provider (%v)", outside, err1)
	}
	err2 := open["shipping"].GetContext(ctx, &outside, `SELECT count(*) FROM shipments
		WHERE state IN ('booking', 'unwanted', 'recalling')`)
	if err2 != nil || outside > 0 {
		return fmt.Sprintf("%d shipments wait for the carrier (%v)", outside, err2)
	}
	for _, service := range slices.Sorted(maps.Keys(open)) {
		var held, waiting int
		err := open[service].QueryRowxContext(ctx, `SELECT (SELECT count(*) FROM outbox_held),
			(SELECT count(*) FROM pending WHERE due IS NOT NULL AND exchange <> '')`).Scan(&held, &waiting)
		if err != nil || held+waiting > 0 {
			return fmt.Sprintf("%s holds %d and retries %d (%v)", service, held, waiting, err)
		}
	}
	lost, _ := w.compare(ctx, open)
	if len(lost) > 0 {
		return fmt.Sprintf("%d events are not handled, such as %s", len(lost), lost[0])
	}
	return ""
}

// compare returns the events that a subscriber has not handled, and those that were handled
// although nobody said them.
func (w *chaosRun) compare(ctx context.Context, open map[string]*sqlx.DB) (lost,
	unexpected []string) {
	published := map[string]map[string]bool{}
	for service, db := range open {
		var rows []struct {
			ID   string `db:"id"`
			Type string `db:"type"`
		}
		if err := db.SelectContext(ctx, &rows, `SELECT id::text AS id, type FROM outbox`); err != nil {
			w.t.Fatal(err)
		}
		for _, r := range rows {
			for _, subscriber := range topology.Fulfilment().Subscribers(r.Type) {
				if published[subscriber] == nil {
					published[subscriber] = map[string]bool{}
				}
				published[subscriber][service+" "+r.Type+" "+r.ID] = true
			}
		}
	}
	for service, db := range open {
		var handled []string
		if err := db.SelectContext(ctx, &handled, `SELECT owner || ' ' || type || ' ' || event_id
			FROM inbox`); err != nil {
			w.t.Fatal(err)
		}
		for _, h := range handled {
			if !published[service][h] {
				unexpected = append(unexpected, service+": "+h)
			}
			delete(published[service], h)
		}
		for s := range published[service] {
			lost = append(lost, service+": "+s)
		}
	}
	return lost, unexpected
}

// end is what the four services say about one order.
type end struct{ order, payment, stock, shipment string }

// check checks what must hold at rest.
func (w *chaosRun) check(ctx context.Context) {
	open := w.databases()
	defer closeAll(open)
	if lost, unexpected := w.compare(ctx, open); len(lost)+len(unexpected) > 0 {
		w.t.Errorf("%d events lost, %d unexpected: %.500v %.500v", len(lost), len(unexpected), lost,
			unexpected)
	}
	ends := map[string]end{}
	read := func(service, query string, set func(e *end, state string)) {
		var rows []struct {
			ID    string `db:"id"`
			State string `db:"state"`
		}
		if err := open[service].SelectContext(ctx, &rows, query); err != nil {
			w.t.Fatal(err)
		}
		for _, r := range rows {
			e := ends[r.ID]
			set(&e, r.State)
			ends[r.ID] = e
		}
	}
	read("orders", `SELECT order_id::text AS id, state FROM orders`,
		func(e *end, s string) { e.order = s })
	read("payments", `SELECT order_id::text AS id, state FROM payments`,
		func(e *end, s string) { e.payment = s })
	read("inventory", `SELECT order_id::text AS id, state FROM reservations`,
		func(e *end, s string) { e.stock = s })
	read("shipping", `SELECT order_id::text AS id, state FROM shipments`,
		func(e *end, s string) { e.shipment = s })
	if len(ends) != len(w.orders) {
		w.t.Errorf("%d orders for %d keys", len(ends), len(w.orders))
	}
	outcomes := map[end]int{}
	for id, e := range ends {
		outcomes[e]++
		good := e == end{"confirmed", "captured", "committed", "scheduled"}
		undone := e.order == "cancelled" && e.payment != "captured" && e.stock != "reserved" &&
			e.stock != "committed" && e.shipment != "scheduled"
		if good == undone {
			w.t.Errorf("order %s: %+v", id, e)
		}
	}
	for _, id := range w.orders {
		if ends[id].order == "" {
			w.t.Errorf("order %s was answered and is not there", id)
		}
	}
	w.t.Logf("%d orders: %v", len(ends), outcomes)
	var withCard []string
	if err := open["payments"].SelectContext(ctx, &withCard, `SELECT order_id::text FROM payments
		WHERE card <> ''`); err != nil {
		w.t.Fatal(err)
	}
	cards := map[string]bool{}
	for _, id := range withCard {
		cards[id] = true
	}
	w.witnessed(ctx, ends, cards)
	w.conserved(ctx, open)
}

// conserved: money and stock are where they were put, and nothing waits for a person.
func (w *chaosRun) conserved(ctx context.Context, open map[string]*sqlx.DB) {
	var balances, captured int64
	err := open["payments"].QueryRowxContext(ctx, `SELECT (SELECT sum(CASE
		WHEN type = 'funds.withdrawn' THEN -1 ELSE 1 END * (payload ->> 'amount')::bigint)
			FROM eventstore),
		(SELECT coalesce(sum(amount), 0) FROM payments WHERE state = 'captured' AND card = '')`).Scan(
		&balances, &captured)
	if err != nil || balances+captured != customers*deposit+poorMoney {
		w.t.Errorf("money: %d in accounts and %d captured of %d (%v)", balances, captured,
			customers*deposit+poorMoney, err)
	}
	var stock []struct {
		SKU                                   string
		Received, OnHand, Reserved, Committed int64
	}
	if err := open["inventory"].SelectContext(ctx, &stock, `SELECT sku, received, on_hand AS onhand,
		reserved, committed FROM stock`); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range stock {
		received := map[string]int64{"teapot": teapots, "samovar": samovars}[s.SKU]
		if s.Received != received || s.Reserved != 0 || s.OnHand+s.Committed != received {
			w.t.Errorf("stock: %+v", s)
		}
	}
	for service, db := range open {
		var parked []string
		if err := db.SelectContext(ctx, &parked, `SELECT type || ': ' || reason FROM pending
			WHERE due IS NULL`); err != nil || len(parked) > 0 {
			w.t.Errorf("%s has parked %q (%v)", service, parked, err)
		}
	}
}
