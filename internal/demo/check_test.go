package demo_test

import (
	"testing"

	"github.com/quadrille-go/quadrille/internal/demo"
)

// TestEveryInterleaving explores the production reactions of the four services.
func TestEveryInterleaving(t *testing.T) {
	for _, m := range demo.Models() {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			r, err := demo.Explore(m)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states, %d terminal, %d outcomes, %.2f s", r.States, r.TerminalStates,
				len(r.TerminalOutcomes), r.Seconds)
			for outcome, n := range r.TerminalOutcomes {
				t.Logf("  %d × %s", n, outcome)
			}
			if !r.Complete {
				t.Error("the exploration stopped before it had visited every state")
			}
			for _, v := range r.Violations {
				t.Errorf("%s", v)
			}
		})
	}
}
