package inventory_test

import (
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/events/fulfilment"
	"github.com/quadrille-go/quadrille/internal/inventory"
)

func TestGoodsAreReceivedOncePerKey(t *testing.T) {
	t.Parallel()
	w := start(t)
	receive := func(body string) string {
		a := w.Call("POST", "/stock/teapot/receipts", body, "Idempotency-Key", "delivery-1")
		if got := a.Header.Get("Location"); a.Status == http.StatusCreated && got != "/stock/teapot" {
			t.Errorf("location %q", got)
		}
		return a.Body
	}
	first := receive(`{"quantity":5}`)
	if second := receive(`{"quantity":5}`); second != first {
		t.Errorf("the replay is %s, not %s", second, first)
	}
	if s := w.stock("teapot"); s != (inventory.Stock{SKU: "teapot", Received: 5, OnHand: 5}) {
		t.Errorf("stock %+v", s)
	}
	w.Want(w.Call("POST", "/stock/teapot/receipts", `{"quantity":6}`, "Idempotency-Key", "delivery-1"),
		http.StatusUnprocessableEntity)
	w.Want(w.Call("POST", "/stock/cup/receipts", `{"quantity":5}`, "Idempotency-Key", "delivery-1"),
		http.StatusUnprocessableEntity)
	w.receive("cup", 2)
	w.Want(w.Call("GET", "/stock", ""), http.StatusOK, `{"stock":[{"sku":"cup","received":2,`,
		`{"sku":"teapot","received":5,`)
	w.Want(w.Call("GET", "/stock/teapot", ""), http.StatusOK, `"on_hand":5`)
	w.Want(w.Call("GET", "/stock/spoon", ""), http.StatusNotFound, "spoon")
}

func TestReceiptsThatNobodyCanMeanAreRefused(t *testing.T) {
	t.Parallel()
	w := start(t)
	for body, field := range map[string]string{
		`{"quantity":0}`: "quantity: ", `{"quantity":-1}`: "quantity: ",
		`{"quantity":1000000001}`: "quantity: ",
		`{"quantity":1.5}`:        "quantity: ", `{"quantity":"1"}`: "quantity: ",
		`{"quantity":null}`: "quantity: ", `{}`: "quantity: ",
		`{"Quantity":1}`: "Quantity: unknown field",
	} {
		w.Want(w.Post("/stock/teapot/receipts", body), http.StatusBadRequest, field)
	}
	w.Want(w.Post("/stock/tea%20pot/receipts", `{"quantity":1}`), http.StatusBadRequest, "sku: ")
	w.Want(w.Call("GET", "/stock/%00", ""), http.StatusBadRequest, "path: ")
	w.receive("teapot", 1)
	if _, err := w.DB.ExecContext(t.Context(), `UPDATE stock SET received = $1, on_hand = $1`,
		int64(math.MaxInt64-1)); err != nil {
		t.Fatal(err)
	}
	w.receive("teapot", 1)
	w.Want(w.Post("/stock/teapot/receipts", `{"quantity":1}`), http.StatusUnprocessableEntity,
		"64 bits")
	if s := w.stock("teapot"); s.OnHand != math.MaxInt64 {
		t.Errorf("stock %+v", s)
	}
}

func TestAReservationIsShownButNotItsTombstone(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.receive("teapot", 3)
	id := events.NewID()
	w.Want(w.Call("GET", "/reservations/"+id, ""), http.StatusNotFound, id)
	w.Want(w.Call("GET", "/reservations/"+strings.ToUpper(id), ""), http.StatusBadRequest,
		"order_id: ")
	w.react(fulfilment.OrderCancelled{OrderID: id, Reason: fulfilment.ReasonCustomer})
	if got := w.state(id); got != inventory.Void {
		t.Fatalf("state %q, want a tombstone", got)
	}
	w.Want(w.Call("GET", "/reservations/"+id, ""), http.StatusNotFound, id)
	other := events.NewID()
	w.react(placed(other, line("teapot", 2), line("teapot", 1)), captured(other))
	w.Want(w.Call("GET", "/reservations/"+other, ""), http.StatusOK, `"state":"reserved"`,
		`"lines":[{"sku":"teapot","quantity":3}]`)
}
