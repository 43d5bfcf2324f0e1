package shipping_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/lib/pq"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

func TestMain(m *testing.M) { webtest.Main(m) }

var participant = shipping.Participant(false, "DE", "FR")

func service(database string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
	return webtest.Must(shipping.New(webtest.Config(database, log), nil, []string{"DE", "FR"}))
}

// env is the service with its tables.
type env struct{ *webtest.Service }

func start(t *testing.T) env { return env{webtest.Start(t, service)} }

func (w env) try(payloads ...events.Payload) ([]events.Event, error) {
	return webtest.React(w.Context(), w.Service, participant, payloads...)
}

// publishes handles events in one transaction and fails the test unless exactly these types are
// said.
func (w env) publishes(want string, payloads ...events.Payload) {
	w.Helper()
	published, err := w.try(payloads...)
	if err != nil {
		w.Fatal(err)
	}
	var types []string
	for _, e := range published {
		types = append(types, e.Data.EventType())
	}
	if got := strings.Join(types, " "); got != want {
		w.Errorf("said %q, want %q", got, want)
	}
}

func (w env) state(order string) (state shipping.ShipmentState) {
	w.Helper()
	if err := w.DB.GetContext(w.Context(), &state, `SELECT state FROM shipments WHERE order_id = $1`,
		order); err != nil {
		w.Fatal(err)
	}
	return state
}

func placed(order, country string) fulfilment.OrderPlaced {
	return fulfilment.OrderPlaced{
		OrderID: order, Customer: "ada", Currency: "EUR",
		Lines: []fulfilment.Line{{SKU: "teapot", Quantity: 1, UnitPrice: 100}},
		Address: fulfilment.Address{Name: "Ada", Street: "1", City: "X", PostalCode: "1",
			Country: country},
	}
}

func reserved(
	order string) fulfilment.StockReserved {
	return fulfilment.StockReserved{OrderID: order}
}

func cancelled(order string) fulfilment.OrderCancelled {
	return fulfilment.OrderCancelled{OrderID: order, Reason: fulfilment.ReasonCustomer}
}

func TestAShipmentIsShownWhenThereIsOne(t *testing.T) {
	t.Parallel()
	w := start(t)
	id, other, dead := events.NewID(), events.NewID(), events.NewID()
	w.Want(w.Call("GET", "/shipments/"+id, ""), http.StatusNotFound, id)
	w.Want(w.Call("GET", "/shipments/1", ""), http.StatusBadRequest, "order_id: ")
	w.publishes("", placed(id, "DE"))
	w.Want(w.Call("GET", "/shipments/"+id, ""), http.StatusNotFound, id)
	w.publishes("shipment.scheduled", reserved(id))
	w.Want(w.Call("GET", "/shipments/"+id, ""), http.StatusOK, `"state":"scheduled"`, `"city":"X"`)
	w.publishes("shipment.cancelled", cancelled(id))
	w.Want(w.Call("GET", "/shipments/"+id, ""), http.StatusOK, `"state":"cancelled"`)
	w.publishes("shipment.failed", placed(other, "AQ"), reserved(other))
	w.Want(w.Call("GET", "/shipments/"+other, ""), http.StatusOK, `"state":"failed"`,
		fulfilment.ReasonNotServed+": AQ")
	w.publishes("", cancelled(dead))
	if got := w.state(dead); got != shipping.Void {
		t.Fatalf("state %q, want a tombstone", got)
	}
	w.Want(w.Call("GET", "/shipments/"+dead, ""), http.StatusNotFound, dead)
	w.Want(w.Call("DELETE", "/shipments/"+id, ""), http.StatusMethodNotAllowed)
	w.Want(w.Call("GET", "/parcels", ""), http.StatusNotFound)
}

func TestACancellationBeforeItsOrderBlocksTheShipment(t *testing.T) {
	t.Parallel()
	w := start(t)
	for _, before := range [][]events.Payload{{}, {placed("", "DE")}, {reserved("")}} {
		id := events.NewID()
		for i := range before {
			switch before[i].(type) {
			case fulfilment.OrderPlaced:
				before[i] = placed(id, "DE")
			default:
				before[i] = reserved(id)
			}
		}
		w.publishes("", append(before, cancelled(id))...)
		w.publishes("", placed(id, "DE"), reserved(id))
		if got := w.state(id); got != shipping.Void {
			t.Errorf("state %q", got)
		}
	}
}

func TestACancellationAndAReservationAtTheSameTimeSendNothing(t *testing.T) {
	t.Parallel()
	w := start(t)
	for range 40 {
		id := events.NewID()
		list := []events.Payload{reserved(id), placed(id, "DE"), cancelled(id), cancelled(id)}
		webtest.Together(t, len(list), func(i int) error {
			_, err := w.try(list[i])
			return err
		})
		if got := w.state(id); got != shipping.Void && got != shipping.Cancelled {
			t.Fatalf("state %q", got)
		}
		scheduled := w.Int(`SELECT count(*) FROM outbox WHERE aggregateid = $1
			AND type = 'shipment.scheduled'`, id)
		if n := w.Int(
			`SELECT count(*) FROM outbox WHERE aggregateid = $1 AND type = 'shipment.cancelled'`,
			id); n != scheduled || n > 1 {
			t.Fatalf("%d scheduled, %d cancelled", scheduled, n)
		}
	}
}

func TestTheDatabaseItselfRefusesBrokenShipments(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.publishes("", placed(events.NewID(), "DE"))
	for _, statement := range []string{
		`UPDATE shipments SET state = 'lost'`, `UPDATE shipments SET state = NULL`, `INSERT INTO shipments
			SELECT * FROM shipments`,
	} {
		_, err := w.DB.ExecContext(t.Context(), statement)
		refused, ok := err.(*pq.Error)
		if !ok || !strings.HasPrefix(string(refused.Code), "23") {
			t.Errorf("%s: %v, want an integrity violation", statement, err)
		}
	}
}

// Every order of arrival, each event twice: at most one parcel, and none when it was cancelled.
func TestEveryOrderOfArrivalSendsTheSame(t *testing.T) {
	t.Parallel()
	const id = "0190a0e0-0000-7000-8000-000000000001"
	check := func(live int, types ...string) func(m consumer.Memory,
		published []events.Payload) error {
		return func(m consumer.Memory, published []events.Payload) error {
			var s shipping.Shipment
			n := webtest.Count(published)
			if _, err := m.Row("shipments", id, &s); err != nil ||
				(s.State == shipping.Scheduled) != (live > 0) {
				return fmt.Errorf("shipment %+v: %v", s, err)
			}
			scheduled := n["shipment.scheduled"]
			if scheduled > 1 || scheduled-n["shipment.cancelled"] != live {
				return fmt.Errorf("said %v", n)
			}
			for _, eventType := range types {
				if n[eventType] != 1 {
					return fmt.Errorf("said %v, want %s once", n, eventType)
				}
			}
			return nil
		}
	}
	order, away := placed(id, "DE"), placed(id, "AQ")
	for _, c := range []struct {
		events []events.Payload
		ways   int
		check  func(m consumer.Memory, published []events.Payload) error
	}{
		{[]events.Payload{order, order, reserved(id), reserved(id)}, 6, check(1, "shipment.scheduled")},
		{[]events.Payload{away, away, reserved(id), reserved(id)}, 6, check(0, "shipment.failed")},
		{[]events.Payload{order, order, reserved(id), reserved(id), cancelled(id), cancelled(id)}, 90,
			check(0)},
	} {
		if n := webtest.Permute(t, participant.Reactor(), consumer.Memory{}, c.events,
			c.check); n != c.ways {
			t.Errorf("%d orders of arrival, want %d", n, c.ways)
		}
	}
}
