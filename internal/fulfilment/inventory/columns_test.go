package inventory_test

import (
	"net/http"
	"testing"

	"github.com/quadrille-go/quadrille/events"
)

// A later release may add columns while this one runs, which then goes on reading and writing.
func TestAColumnThatIsAddedHarmsNothing(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.receive("teapot", 3)
	w.AddColumns()
	w.receive("teapot", 4)
	id := events.NewID()
	w.react(placed(id, line("teapot", 2)), captured(id))
	w.Want(w.Call("GET", "/reservations/"+id, ""), http.StatusOK, `"state":"reserved"`)
	w.Want(w.Call("GET", "/stock/teapot", ""), http.StatusOK, `"received":7`, `"reserved":2`)
	w.Want(w.Call("GET", "/stock", ""), http.StatusOK, `"sku":"teapot"`)
}
