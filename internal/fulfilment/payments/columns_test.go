package payments_test

import (
	"net/http"
	"testing"

	"github.com/quadrille-go/quadrille/events"
)

// A later release may add columns while this one runs, which then goes on reading and writing, in
// the tables of its projections and through their views as well.
func TestAColumnThatIsAddedHarmsNothing(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rich(1000)
	w.AddColumns()
	w.Want(w.Post("/accounts/ada/deposits", money(500)), http.StatusCreated)
	id := events.NewID()
	w.react(placed(id, 100))
	w.Want(w.Call("GET", "/payments/"+id, ""), http.StatusOK, `"state":"captured"`)
	w.Want(w.Call("GET", "/payments?state=charging", ""), http.StatusOK, `"payments":[]`)
	w.project()
	w.projected("ada", 4)
	w.Want(w.Call("GET", "/accounts", ""), http.StatusOK, `"balance":1400`)
	w.Want(w.Call("GET", "/accounts/ada", ""), http.StatusOK, `"balance":1400`)
	w.Want(w.Call("GET", "/accounts/ada/statement", ""), http.StatusOK, `"balance":1400`)
	w.Want(w.Call("GET", "/accounts/ada/history", ""), http.StatusOK, `"version":4`)
	w.Want(w.Call("POST", "/accounts/ada/verification", ""), http.StatusOK)
}
