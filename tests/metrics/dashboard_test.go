package metrics_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// Each query of the dashboard is valid, and each metric in it exists with the labels that it uses.
func TestDashboard(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../deploy/grafana/quadrille.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name, Query string }
		}
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	// Grafana replaces these.
	variables := strings.NewReplacer("$__rate_interval", "1m", "$job", ".+")
	exported, shown := documented(t), map[string]bool{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, metric := range metricsOf(t, variables.Replace(target.Expr)) {
				shown[metric] = true
				if exported[metric] == "" && !strings.HasPrefix(metric, "go_") &&
					!strings.HasPrefix(metric, "process_") {
					t.Errorf("%s: %s does not exist", p.Title, metric)
				}
			}
		}
	}
	if len(shown) < 25 {
		t.Errorf("the dashboard shows only %d metrics", len(shown))
	}
	for _, v := range dashboard.Templating.List {
		if name, ok := strings.CutPrefix(v.Query, "label_values("); ok {
			if metric, _, _ := strings.Cut(name, ","); exported[metric] == "" {
				t.Errorf("the variable %s: %s does not exist", v.Name, metric)
			}
		}
	}
}
