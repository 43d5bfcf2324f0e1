package demo

import (
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/check"
)

// A violation that several models share is listed once, with the names of the models and its steps.
func TestACauseOfSeveralModelsIsListedOnce(t *testing.T) {
	shared := check.Violation{What: "it is wrong", Way: []string{"first", "second"}, States: 3}
	all := combineReports([]string{"a", "b"}, []check.Report{
		{States: 1, Complete: true, Violations: []check.Violation{shared}},
		{States: 2, Complete: true, Violations: []check.Violation{shared,
			{What: "so is this", States: 1}}},
	})
	text := strings.Join(all.Lines, "\n")
	if all.Violations != 2 || all.States != 3 || strings.Count(text, "it is wrong") != 1 ||
		!strings.Contains(text,
			"violation in a; b: it is wrong (3 states), after:\n    first\n    second\n") {
		t.Errorf("%d violations:\n%s", all.Violations, text)
	}
}
