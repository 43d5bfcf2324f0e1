package system_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/quadrille-go/quadrille/internal/fulfilment/simulator"
)

// callSimulators makes a request to the simulators.
func (w *chaosRun) callSimulators(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, w.stack.SimulatorsURL()+path,
		bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := w.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, response.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(out)
}

// setRule sets a fault rule of the simulators.
func (w *chaosRun) setRule(ctx context.Context, rule simulator.Rule) error {
	return w.callSimulators(ctx, http.MethodPut, "/rules", rule, nil)
}

// checkJournal compares the orders with the journal of the simulators.
func (w *chaosRun) checkJournal(ctx context.Context, ends map[string]end, cards map[string]bool) {
	var journal []simulator.Entry
	if err := w.callSimulators(ctx, http.MethodGet, "/journal", nil, &journal); err != nil {
		w.t.Fatal(err)
	}
	done := map[string]map[string]int{}
	all := map[string]int{}
	for _, e := range journal {
		if done[e.OrderID] == nil {
			done[e.OrderID] = map[string]int{}
		}
		all[e.Call]++
		if e.Done {
			done[e.OrderID][e.Call]++
			all[e.Call+" done"]++
		}
	}
	w.t.Logf("outside: %v", all)
	for id, e := range ends {
		charged, booked := 0, 0
		if e.order == "confirmed" {
			booked = 1
			if cards[id] {
				charged = 1
			}
		}
		d := done[id]
		if d[simulator.Charges] > 1 || d[simulator.Charges]-d[simulator.Refunds] != charged {
			w.t.Errorf("order %s, %+v: charged %d times and refunded %d times", id, e, d[simulator.Charges],
				d[simulator.Refunds])
		}
		if d[simulator.Bookings] > 1 || d[simulator.Bookings]-d[simulator.Recalls] != booked {
			w.t.Errorf("order %s, %+v: booked %d times and recalled %d times", id, e, d[simulator.Bookings],
				d[simulator.Recalls])
		}
	}
	if len(w.done) > 0 && (all[simulator.Charges+" done"] == 0 ||
		all[simulator.Charges] == all[simulator.Charges+" done"]) {
		w.t.Errorf("the simulated faults had no effect on the charges: %v", all)
	}
}
