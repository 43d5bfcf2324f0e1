package quadrilletest

import (
	"testing"

	"github.com/quadrille-go/quadrille/check"
)

// Check explores every interleaving of a choreography. The test fails for each violation, with the
// shortest way to it, one step a line, and also if the exploration was not complete. The report has
// the ways in which it ends.
func Check(t testing.TB, m check.Model) check.Report {
	t.Helper()
	r, err := check.Explore(m)
	if err != nil {
		t.Fatalf("explore the choreography: %v", err)
	}
	for _, v := range r.Violations {
		t.Errorf("%s", v)
	}
	if !r.Complete {
		t.Errorf("only %d states were visited and there are more: raise MaxStates of the model, or make "+
			"it smaller", r.States)
	}
	return r
}
