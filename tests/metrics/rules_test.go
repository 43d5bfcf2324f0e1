package metrics_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"go.yaml.in/yaml/v3"
)

const (
	alertsFile = "../../deploy/prometheus/alerts.yml"
	alertsTest = "../../deploy/prometheus/alerts_test.yml"
)

// unitTests is a file for `promtool test rules`, as far as it is used here. promtool itself cannot
// be imported; this is what it does with such a file, with the same packages.
type unitTests struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []struct {
		Name        string         `yaml:"name"`
		Interval    model.Duration `yaml:"interval"`
		InputSeries []struct {
			Series, Values string
		} `yaml:"input_series"`
		AlertRuleTest []struct {
			EvalTime  model.Duration `yaml:"eval_time"`
			Alertname string         `yaml:"alertname"`
			ExpAlerts []struct {
				Labels      map[string]string `yaml:"exp_labels"`
				Annotations map[string]string `yaml:"exp_annotations"`
			} `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	} `yaml:"tests"`
}

// alertRules returns the rules by their names, after the checks of `promtool check rules`.
func alertRules(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(alertsFile, false, model.LegacyValidation,
		parser.NewParser(parser.Options{}), promslog.NewNopLogger())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	all := map[string]rulefmt.Rule{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if _, twice := all[r.Alert]; twice || r.Alert == "" {
				t.Errorf("the rule %q is there twice, or is no alert", r.Alert)
			}
			all[r.Alert] = r
		}
	}
	return all
}

// Each rule is valid, says what is wrong and what to do, and reads only metrics that exist.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	exported := documented(t)
	for name, r := range alertRules(t) {
		for _, key := range []string{"summary", "description"} {
			if r.Annotations[key] == "" {
				t.Errorf("%s has no %s", name, key)
			}
		}
		if r.Labels["severity"] == "" {
			t.Errorf("%s has no severity", name)
		}
		for _, metric := range metricsOf(t, r.Expr) {
			if exported[metric] == "" {
				t.Errorf("%s reads %s, which does not exist", name, metric)
			}
		}
	}
}

// metricsOf returns the names of the metrics in a query, those of histograms without their suffix.
func metricsOf(t *testing.T, query string) (names []string) {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %v", query, err)
		return nil
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok {
			name := s.Name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				name = strings.TrimSuffix(name, suffix)
			}
			names = append(names, name)
		}
		return nil
	})
	return names
}

// Each alert is raised by its fault within a minute and clears after it, with the expected labels
// and texts.
func TestAlertRulesOnSeries(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(alertsTest)
	if err != nil {
		t.Fatal(err)
	}
	var file unitTests
	if err := yaml.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	untested := alertRules(t)
	for _, test := range file.Tests {
		raised, cleared := false, false
		suite := newSuite(t, time.Duration(test.Interval), func(load func(series, values string)) {
			for _, s := range test.InputSeries {
				load(s.Series, s.Values)
			}
		})
		for _, c := range test.AlertRuleTest {
			got := suite.alerts(time.Duration(file.EvaluationInterval), time.Duration(c.EvalTime),
				c.Alertname)
			var want []string
			for _, a := range c.ExpAlerts {
				a.Labels["alertname"] = c.Alertname
				want = append(want, alertText(a.Labels, a.Annotations))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s at %s:\n%s\nwant\n%s", c.Alertname, c.EvalTime, strings.Join(got, "\n"),
					strings.Join(want, "\n"))
			}
			delete(untested, c.Alertname)
			cleared = raised && len(want) == 0
			raised = raised || len(want) > 0
		}
		if !cleared {
			t.Errorf("%s is not expected to be raised and to clear", test.Name)
		}
	}
	for name := range untested {
		t.Errorf("%s has no test in %s", name, alertsTest)
	}
}

func alertText(l, annotations map[string]string) string {
	var text []string
	for _, m := range []map[string]string{l, annotations} {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			text = append(text, fmt.Sprintf("%s=%q", key, m[key]))
		}
	}
	return strings.Join(text, " ")
}

// suite evaluates the rules on series.
type suite struct {
	t      *testing.T
	loader *promqltest.LazyLoader
	groups map[string]*rules.Group
	at     time.Duration // of the last evaluation; negative: there was none
}

func newSuite(t *testing.T, interval time.Duration,
	series func(load func(series, values string))) *suite {
	t.Helper()
	input := fmt.Sprintf("load %s\n", interval)
	series(func(series, values string) { input += "  " + series + " " + values + "\n" })
	loader, err := promqltest.NewLazyLoader(input, promqltest.LazyLoaderOpts{EnableAtModifier: true,
		EnableNegativeOffset: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = loader.Close() })
	groups := loadRules(t, &rules.ManagerOptions{Context: t.Context(),
		QueryFunc:    rules.EngineQueryFunc(loader.QueryEngine(), loader.Storage()),
		AppendableV2: loader.Storage()})
	return &suite{t, loader, groups, -1}
}

// loadRules loads the alert rules for a storage.
func loadRules(t *testing.T, o *rules.ManagerOptions) map[string]*rules.Group {
	t.Helper()
	o.Logger = promslog.NewNopLogger()
	o.NotifyFunc = func(_ context.Context, _ string, _ ...*rules.Alert) {}
	o.Parser = parser.NewParser(parser.Options{})
	groups, errs := rules.NewManager(o).LoadGroups(time.Second, labels.EmptyLabels(), "", nil, false,
		alertsFile)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return groups
}

// alerts evaluates the rules up to a time, and returns what is raised then of one alert.
func (s *suite) alerts(interval, until time.Duration, name string) (raised []string) {
	s.t.Helper()
	for next := s.at + interval; ; next += interval {
		if s.at < 0 {
			next = 0
		}
		if next > until {
			break
		}
		s.at = next
		at := time.Unix(0, 0).UTC().Add(next)
		s.loader.WithSamplesTill(at, func(err error) {
			if err != nil {
				s.t.Fatal(err)
			}
			for _, g := range s.groups {
				g.Eval(s.loader.Context(), at)
			}
		})
	}
	return firing(s.t, s.groups, name)
}

// firing returns what is raised of one alert.
func firing(t *testing.T, groups map[string]*rules.Group, name string) (raised []string) {
	t.Helper()
	for _, g := range groups {
		for _, r := range g.Rules() {
			if err := r.LastError(); err != nil {
				t.Fatalf("%s: %v", r.Name(), err)
			}
			alert, ok := r.(*rules.AlertingRule)
			if !ok || alert.Name() != name {
				continue
			}
			for _, a := range alert.ActiveAlerts() {
				if a.State == rules.StateFiring {
					raised = append(raised, alertText(a.Labels.Map(), a.Annotations.Map()))
				}
			}
		}
	}
	slices.Sort(raised)
	return raised
}
