package shipping_test

import (
	"net/http"
	"testing"

	"github.com/quadrille-go/quadrille/events"
)

// A later release may add columns while this one runs, which then goes on reading and writing.
func TestAColumnThatIsAddedHarmsNothing(t *testing.T) {
	t.Parallel()
	w := start(t)
	id, other := events.NewID(), events.NewID()
	w.publishes("shipment.scheduled", placed(id, "DE"), reserved(id))
	w.AddColumns()
	w.publishes("shipment.scheduled", placed(other, "DE"), reserved(other))
	w.publishes("shipment.cancelled", cancelled(id))
	w.Want(w.Call("GET", "/shipments/"+id, ""), http.StatusOK, `"state":"cancelled"`)
	w.Want(w.Call("GET", "/shipments?state=booking", ""), http.StatusOK, `"shipments":[]`)
}
