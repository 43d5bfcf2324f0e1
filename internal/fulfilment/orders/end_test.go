package orders_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

func scheduled(id string) fulfilment.ShipmentScheduled {
	return fulfilment.ShipmentScheduled{OrderID: id, Country: "GB"}
}

// refusals are all that end an order without a shipment, with the reason that they give.
func refusals(id string) map[string]events.Payload {
	return map[string]events.Payload{
		fulfilment.ReasonNoFunds: fulfilment.PaymentDeclined{OrderID: id,
			Reason: fulfilment.ReasonNoFunds},
		fulfilment.ReasonOutOfStock: fulfilment.StockRejected{OrderID: id,
			Reason: fulfilment.ReasonOutOfStock},
		fulfilment.ReasonNotServed: fulfilment.ShipmentFailed{OrderID: id,
			Reason: fulfilment.ReasonNotServed},
		fulfilment.ReasonDeadline: orders.Expire{OrderID: id},
	}
}

func TestACustomerCancelsUntilTheOrderIsConfirmed(t *testing.T) {
	t.Parallel()
	w := start(t)
	id := w.place("ada").ID
	for range 2 {
		w.Want(w.Call("POST", "/orders/"+id+"/cancellation", ""), http.StatusOK, `"state":"cancelled"`,
			fulfilment.ReasonCustomer)
	}
	if n := w.published(id, "order.cancelled"); n != 1 {
		t.Errorf("order.cancelled was said %d times", n)
	}
	if published := w.react(scheduled(id)); len(published) != 0 ||
		w.show(id).State != orders.Cancelled {
		t.Errorf("a late shipment: said %v, %+v", published, w.show(id))
	}
	id = w.place("ada").ID
	w.react(scheduled(id))
	w.Want(w.Call("POST", "/orders/"+id+"/cancellation", ""), http.StatusConflict, "confirmed")
	if v := w.show(id); v.State != orders.Confirmed || v.Reason != "" ||
		w.published(id, "order.cancelled") != 0 {
		t.Errorf("order %+v", v)
	}
	w.Want(w.Call("POST", "/orders/"+events.NewID()+"/cancellation", ""), http.StatusNotFound)
	w.Want(w.Call("POST", "/orders/nonsense/cancellation", ""), http.StatusBadRequest, "order_id: ")
	if n := w.Int(`SELECT count(*) FROM orders`); n != 2 {
		t.Errorf("%d orders: to cancel nothing must make nothing", n)
	}
}

func TestEveryRefusalEndsTheOrderOnce(t *testing.T) {
	t.Parallel()
	w := start(t)
	for reason := range refusals("") {
		id := w.place("ada").ID
		list := refusals(id)
		w.react(list[reason])
		for _, later := range list {
			if published := w.react(later); len(published) != 0 {
				t.Errorf("%s after %q: said %v", later.EventType(), reason, published)
			}
		}
		if v := w.show(id); v.State != orders.Cancelled || v.Reason != reason ||
			w.published(id, "order.cancelled") != 1 {
			t.Errorf("%s: order %+v", reason, v)
		}
		if published := w.react(scheduled(id)); len(published) != 0 {
			t.Errorf("a shipment after the end: said %v", published)
		}
	}
}

// The order's own row decides, in one place, what all others will hear.
func TestACancellationAndAConfirmationAtTheSameTimeHaveOneWinner(t *testing.T) {
	t.Parallel()
	w := start(t)
	winners := map[orders.OrderState]int{}
	for range 30 {
		id := w.place("ada").ID
		webtest.Together(t, 4, func(i int) error {
			switch i {
			case 0:
				a, err := w.Try(t.Context(), "POST", "/orders/"+id+"/cancellation", "")
				if err == nil && a.Status != http.StatusOK && a.Status != http.StatusConflict {
					err = fmt.Errorf("cancellation: %d %s", a.Status, a.Body)
				}
				return err
			case 1:
				_, err := w.try(orders.Expire{OrderID: id})
				return err
			}
			_, err := w.try(scheduled(id))
			return err
		})
		v := w.show(id)
		winners[v.State]++
		published := w.published(id, "order.cancelled") + w.published(id, "order.confirmed")
		if v.State == orders.Placed || published != 1 || w.published(id, "order."+string(v.State)) != 1 {
			t.Fatalf("order %+v, of whose end was said %d times", v, published)
		}
	}
	t.Logf("winners: %v", winners)
}

// An order that is not known ends like any other, whatever is heard of it first.
func TestAnUnknownOrderIsAdopted(t *testing.T) {
	t.Parallel()
	w := start(t)
	for reason := range refusals("") {
		id := events.NewID()
		w.react(refusals(id)[reason])
		if v := w.show(id); !v.Adopted || v.State != orders.Cancelled || v.Reason != reason ||
			w.published(id, "order.cancelled") != 1 {
			t.Errorf("%s: order %+v", reason, v)
		}
	}
	id := events.NewID()
	w.react(scheduled(id))
	if v := w.show(id); !v.Adopted || v.State != orders.Confirmed ||
		w.published(id, "order.confirmed") != 1 {
		t.Errorf("order %+v", v)
	}
	// Two replicas adopt it at the same time.
	for range 20 {
		id := events.NewID()
		list := []events.Payload{scheduled(id), orders.Expire{OrderID: id}}
		webtest.Together(t, 2, func(i int) error {
			_, err := w.try(list[i])
			return err
		})
		if n := w.published(id, "order.cancelled") + w.published(id, "order.confirmed"); n != 1 {
			t.Fatalf("order %+v, of whose end was said %d times", w.show(id), n)
		}
	}
}

// Every order of arrival, each event twice: one end, said once.
func TestEveryOrderOfArrivalHasOneEnd(t *testing.T) {
	t.Parallel()
	const id = "0190a0e0-0000-7000-8000-000000000001"
	begin := consumer.Memory{}
	place := orders.Place{Within: time.Minute,
		OrderPlaced: fulfilment.Samples(id)[0].(fulfilment.OrderPlaced)}
	if _, err := orders.Participant.Reactor().React(begin,
		events.Command(place, time.Unix(0, 0))); err != nil {
		t.Fatal(err)
	}
	check := func(ends ...orders.OrderState) func(m consumer.Memory,
		published []events.Payload) error {
		return func(m consumer.Memory, published []events.Payload) error {
			var o orders.Order
			if _, err := m.Row("orders", id, &o); err != nil {
				return err
			}
			n := webtest.Count(published)
			if len(published) != 1 || n["order."+string(o.State)] != 1 || len(ends) > 0 &&
				o.State != ends[0] {
				return fmt.Errorf("%s, said %v", o.State, n)
			}
			return nil
		}
	}
	var list []events.Payload
	for _, p := range refusals(id) {
		list = append(list, p)
	}
	list = append(list, orders.Cancel{OrderID: id})
	for _, memory := range []consumer.Memory{begin, {}} {
		if len(memory) == 0 {
			list = list[:len(list)-1] // who cancels what is not known makes nothing
		}
		webtest.Permute(t, orders.Participant.Reactor(), memory, append(list, list[0]),
			check(orders.Cancelled))
		webtest.Permute(t, orders.Participant.Reactor(), memory,
			append(list, scheduled(id), scheduled(id)), check())
	}
}
