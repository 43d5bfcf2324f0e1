package orders_test

import (
	"net/http"
	"testing"
)

// A later release may add columns while this one runs, which then goes on reading and writing.
func TestAColumnThatIsAddedHarmsNothing(t *testing.T) {
	t.Parallel()
	w := start(t)
	before := w.place("ada")
	w.AddColumns()
	w.Want(w.Call("GET", "/orders/"+before.ID, ""), http.StatusOK, before.ID)
	after := w.place("ada")
	w.Want(w.Call("GET", "/orders?customer=ada", ""), http.StatusOK, before.ID, after.ID)
	w.Want(w.Call("POST", "/orders/"+before.ID+"/cancellation", ""), http.StatusOK, "cancelled")
	if got := w.published(after.ID, "order.placed"); got != 1 {
		t.Errorf("order.placed said %d times", got)
	}
}
