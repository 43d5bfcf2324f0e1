package demo

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/postgres"
)

// tampering is a change of a database by hand, by statements that the placeholder %s makes about
// one order, with what the audit says of it, and the statement that repairs it.
type tampering struct {
	name, service, change, repair string
	want                          string
}

var tamperings = []tampering{
	{"the amount of a payment", "payments",
		`UPDATE payments SET amount = amount + 1 WHERE order_id = '%s'`,
		`UPDATE payments SET amount = amount - 1 WHERE order_id = '%s'`,
		"the order is about 2500 EUR, the payment about 2501 EUR"},
	{"the state of a payment", "payments",
		`UPDATE payments SET state = 'refunded' WHERE order_id = '%s'`,
		`UPDATE payments SET state = 'captured' WHERE order_id = '%s'`,
		"the payment is refunded with 2500, and the account of ada has paid 2500 for it"},
	{"a fact of an account", "payments",
		`UPDATE eventstore SET payload = replace(payload::text, '2500', '2400')::json
			WHERE payload->>'order_id' = '%s'`,
		`UPDATE eventstore SET payload = replace(payload::text, '2400', '2500')::json
			WHERE payload->>'order_id' = '%s'`,
		"accounts are their events"},
	{"the state of an order", "orders",
		`UPDATE orders SET state = 'cancelled', reason = 'by hand' WHERE order_id = '%s'`,
		`UPDATE orders SET state = 'confirmed', reason = '' WHERE order_id = '%s'`,
		"of a cancelled order nothing is paid, reserved or shipped: order cancelled, payment captured"},
	{"the lines of an order", "orders",
		`UPDATE orders SET lines = replace(lines::text, '2500', '9')::json WHERE order_id = '%s'`,
		`UPDATE orders SET lines = replace(lines::text, '"unit_price":9', '"unit_price":2500')::json
			WHERE order_id = '%s'`,
		"the amount is 2500, its lines make 9"},
	{"a shipment is deleted", "shipping",
		`CREATE TABLE kept AS SELECT * FROM shipments WHERE order_id = '%[1]s';
			DELETE FROM shipments WHERE order_id = '%[1]s'`,
		`INSERT INTO shipments SELECT * FROM kept; DROP TABLE kept -- %s`,
		"stock committed, shipment none"},
	{"stock that nobody has reserved", "inventory",
		`UPDATE stock SET reserved = reserved + 3, on_hand = on_hand - 3 -- %s`,
		`UPDATE stock SET reserved = reserved - 3, on_hand = on_hand + 3 -- %s`,
		"of teapot the stock has 3 reserved and 3 committed, the reservations have 0 and 3"},
	{"an event in a history", "payments",
		`UPDATE outbox SET payload = replace(payload::text, '2500', '2499')::json
			WHERE aggregateid = '%s'`,
		`UPDATE outbox SET payload = replace(payload::text, '2499', '2500')::json
			WHERE aggregateid = '%s'`,
		"has other data in the outbox of payments than inventory has received"},
	{"an event is deleted from a history", "inventory",
		`CREATE TABLE kept AS SELECT * FROM outbox WHERE aggregateid = '%[1]s';
			DELETE FROM outbox WHERE aggregateid = '%[1]s'`,
		`INSERT INTO outbox OVERRIDING SYSTEM VALUE SELECT * FROM kept; DROP TABLE kept -- %s`,
		"stock.reserved was never published, although the state says so"},
	{"a receipt is deleted", "shipping",
		`CREATE TABLE kept AS SELECT * FROM inbox WHERE type = 'stock.reserved' LIMIT 1;
			DELETE FROM inbox USING kept WHERE inbox.event_id = kept.event_id -- %s`,
		`INSERT INTO inbox SELECT * FROM kept; DROP TABLE kept -- %s`,
		"is not in the inbox of shipping: it is in the queue, or it is lost"},
	{"a parked event without its receipt", "shipping",
		`INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key, attributes, body,
				attempts, reason)
			VALUES ('shipping', 'orders', '%[1]s', 'retry', 'order.placed', 'orders.events', 'order.placed',
				'{"subject": "%[1]s"}', '', 1, 'by hand')`,
		`DELETE FROM pending WHERE key = '%s'`,
		"pends (retry) but is not in the inbox: delivered again, it would be handled twice"},
}

// place places an order of ada for a teapot, and returns its id when it is confirmed.
func (b *services) place() (order string) {
	b.Helper()
	code, out, errOut := b.run("", "order", "place", "--sample", "--wait", "-o", "json")
	var o orders.View
	if err := json.Unmarshal([]byte(out), &o); err != nil || code != 0 || o.State != orders.Confirmed {
		b.Fatalf("place: exit %d, %v\n%s%s", code, err, out, errOut)
	}
	return o.ID
}

// The audit finds nothing in services that only the services have written, and each change of a
// database by hand, with the order and the sums.
func TestAuditFindsWhatAHandHasChanged(t *testing.T) {
	t.Parallel()
	b := startServices(t)
	b.check(commandLine{"accounts deposit ada 100000", "", 0, "100000"}, false)
	b.check(commandLine{"stock receive teapot 10", "", 0, "teapot"}, false)
	var order string
	for range 3 {
		order = b.place()
	}
	b.check(commandLine{"order place --sample --customer poor --wait", "", 0, "cancelled"}, false)
	b.check(commandLine{"audit --grace 30s", "", 0, "0 contradictions"}, true)
	for _, x := range tamperings {
		db, err := postgres.Open(b.databases[x.service])
		if err != nil {
			t.Fatal(err)
		}
		execute := func(statements string) {
			t.Helper()
			for statement := range strings.SplitSeq(fmt.Sprintf(statements, order), ";") {
				if _, err := db.ExecContext(t.Context(), statement); err != nil {
					t.Fatalf("%s: %v", x.name, err)
				}
			}
		}
		execute(x.change)
		code, out, errOut := b.run("", "audit", "--grace", "10ms")
		if code != cli.ExitProblems || !strings.Contains(out, x.want) {
			t.Errorf("%s: exit %d, want %q\n%s%s", x.name, code, x.want, out, errOut)
		}
		execute(x.repair)
		_ = db.Close()
	}
	b.check(commandLine{"audit --grace 10ms", "", 0, "4 orders"}, true)
}
