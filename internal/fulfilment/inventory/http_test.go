package inventory_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
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

// The list of the stock comes in pages in the order of the articles, and the last page names no
// other.
func TestTheStockIsPagedByArticle(t *testing.T) {
	t.Parallel()
	w := start(t)
	var want []string
	for i := range 7 {
		sku := fmt.Sprintf("cup-%d", i)
		w.receive(sku, 1)
		want = append(want, sku)
	}
	var got []string
	for after, pages := "", 0; pages == 0 || after != ""; pages++ {
		var page struct {
			Stock []inventory.Stock
			Next  string
		}
		query := "?limit=3"
		if after != "" {
			query += "&after=" + after
		}
		w.Decode(w.Want(w.Call("GET", "/stock"+query, ""), http.StatusOK), &page)
		if len(page.Stock) > 3 || pages > 2 {
			t.Fatalf("page %d has %d articles", pages, len(page.Stock))
		}
		for _, s := range page.Stock {
			got = append(got, s.SKU)
		}
		after = page.Next
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	for query, answer := range map[string]string{
		"?limit=7":     `"sku":"cup-6","received":1,"on_hand":1,"reserved":0,"committed":0}]}`,
		"?after=cup-6": `{"stock":[]}`,
	} {
		w.Want(w.Call("GET", "/stock"+query, ""), http.StatusOK, answer)
	}
	for query, field := range map[string]string{
		"?page=2": "unknown parameter", "?limit=0": "limit: ", "?limit=1001": "limit: ",
		"?after=tea%20pot": "after: ",
	} {
		w.Want(w.Call("GET", "/stock"+query, ""), http.StatusBadRequest, field)
	}
}
