package system_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// openDatabases opens the databases of the four services.
func (w *chaosRun) openDatabases() map[string]*sqlx.DB {
	databases := map[string]*sqlx.DB{}
	for _, s := range fulfilment.Topology().Services {
		db, err := postgres.Open(w.stack.DatabaseURL(s.Name))
		if err != nil {
			w.t.Fatal(err)
		}
		databases[s.Name] = db
	}
	return databases
}

// awaitRest waits until nothing is in progress: every order has ended, every outbox is empty, and
// every subscriber has handled its events.
func (w *chaosRun) awaitRest(ctx context.Context, limit time.Duration) {
	databases := w.openDatabases()
	defer closeAll(databases)
	quadrilletest.WaitAtMost(w.t, limit, "nothing is in progress", func() (bool, string) {
		progress := w.inProgress(ctx, databases)
		return progress == "", progress
	})
}

func closeAll(databases map[string]*sqlx.DB) {
	for _, db := range databases {
		_ = db.Close()
	}
}

// inProgress describes something that is still in progress, or returns an empty string.
func (w *chaosRun) inProgress(ctx context.Context, databases map[string]*sqlx.DB) string {
	var placed int
	if err := databases["orders"].GetContext(ctx, &placed, `SELECT count(*) FROM orders
		WHERE state = 'placed'`); err != nil || placed > 0 {
		return fmt.Sprintf("%d orders are placed (%v)", placed, err)
	}
	var outside int
	err1 := databases["payments"].GetContext(ctx, &outside, `SELECT count(*) FROM payments
		WHERE state IN ('charging', 'unwanted', 'refunding')`)
	if err1 != nil || outside > 0 {
		return fmt.Sprintf("%d payments wait for the provider (%v)", outside, err1)
	}
	err2 := databases["shipping"].GetContext(ctx, &outside, `SELECT count(*) FROM shipments
		WHERE state IN ('booking', 'unwanted', 'recalling')`)
	if err2 != nil || outside > 0 {
		return fmt.Sprintf("%d shipments wait for the carrier (%v)", outside, err2)
	}
	for _, service := range slices.Sorted(maps.Keys(databases)) {
		var held, waiting int
		err := databases[service].QueryRowxContext(ctx, `SELECT (SELECT count(*) FROM outbox_held),
			(SELECT count(*) FROM pending WHERE due IS NOT NULL AND exchange <> '')`).Scan(&held, &waiting)
		if err != nil || held+waiting > 0 {
			return fmt.Sprintf("%s holds %d and retries %d (%v)", service, held, waiting, err)
		}
	}
	lost, _ := w.compare(ctx, databases)
	if len(lost) > 0 {
		return fmt.Sprintf("%d events are not handled, such as %s", len(lost), lost[0])
	}
	return ""
}

// compare returns the events that a subscriber has not handled, and the handled events that no
// service published.
func (w *chaosRun) compare(ctx context.Context, databases map[string]*sqlx.DB) (lost,
	unexpected []string) {
	published := map[string]map[string]bool{}
	for service, db := range databases {
		var rows []struct {
			ID   string `db:"id"`
			Type string `db:"type"`
		}
		if err := db.SelectContext(ctx, &rows, `SELECT id::text AS id, type FROM outbox`); err != nil {
			w.t.Fatal(err)
		}
		for _, r := range rows {
			for _, subscriber := range fulfilment.Topology().Subscribers(r.Type) {
				if published[subscriber] == nil {
					published[subscriber] = map[string]bool{}
				}
				published[subscriber][service+" "+r.Type+" "+r.ID] = true
			}
		}
	}
	for service, db := range databases {
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

// end is the state of one order in each of the four services.
type end struct{ order, payment, stock, shipment string }

// check checks the invariants at rest.
func (w *chaosRun) check(ctx context.Context) {
	databases := w.openDatabases()
	defer closeAll(databases)
	if lost, unexpected := w.compare(ctx, databases); len(lost)+len(unexpected) > 0 {
		w.t.Errorf("%d events lost, %d unexpected: %.500v %.500v", len(lost), len(unexpected), lost,
			unexpected)
	}
	ends := map[string]end{}
	read := func(service, query string, set func(e *end, state string)) {
		var rows []struct {
			ID    string `db:"id"`
			State string `db:"state"`
		}
		if err := databases[service].SelectContext(ctx, &rows, query); err != nil {
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
		w.t.Errorf("%d orders exist for %d idempotency keys", len(ends), len(w.orders))
	}
	outcomes := map[end]int{}
	for id, e := range ends {
		outcomes[e]++
		good := e == end{"confirmed", "captured", "committed", "scheduled"}
		undone := e.order == "cancelled" && e.payment != "captured" && e.stock != "reserved" &&
			e.stock != "committed" && e.shipment != "scheduled"
		if good == undone {
			w.t.Errorf("order %s is neither confirmed nor cancelled everywhere: %+v", id, e)
		}
	}
	for _, id := range w.orders {
		if ends[id].order == "" {
			w.t.Errorf("order %s was acknowledged to its client and does not exist", id)
		}
	}
	w.t.Logf("%d orders: %v", len(ends), outcomes)
	var withCard []string
	if err := databases["payments"].SelectContext(ctx, &withCard, `SELECT order_id::text FROM payments
		WHERE card <> ''`); err != nil {
		w.t.Fatal(err)
	}
	cards := map[string]bool{}
	for _, id := range withCard {
		cards[id] = true
	}
	w.checkJournal(ctx, ends, cards)
	w.checkTotals(ctx, databases)
}

// checkTotals checks that money and stock are conserved and that nothing is parked.
func (w *chaosRun) checkTotals(ctx context.Context, databases map[string]*sqlx.DB) {
	var balances, captured int64
	err := databases["payments"].QueryRowxContext(ctx, `SELECT (SELECT sum(CASE
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
	if err := databases["inventory"].SelectContext(ctx, &stock, `SELECT sku, received,
		on_hand AS onhand,
		reserved, committed FROM stock`); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range stock {
		received := map[string]int64{"teapot": teapots, "samovar": samovars}[s.SKU]
		if s.Received != received || s.Reserved != 0 || s.OnHand+s.Committed != received {
			w.t.Errorf("stock: %+v", s)
		}
	}
	for service, db := range databases {
		var parked []string
		if err := db.SelectContext(ctx, &parked, `SELECT type || ': ' || reason FROM pending
			WHERE due IS NULL`); err != nil || len(parked) > 0 {
			w.t.Errorf("%s has parked %q (%v)", service, parked, err)
		}
	}
}
