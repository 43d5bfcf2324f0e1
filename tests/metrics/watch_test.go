//go:build faults

package metrics_test

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
)

// watchInterval is between two scrapes and evaluations. For Prometheus it may be up to 15 seconds;
// see raisedWithin.
const watchInterval = time.Second

// watcher does what Prometheus does: it scrapes services, stores samples and evaluates rules.
type watcher struct {
	t      *testing.T
	db     *teststorage.TestStorage
	engine *promql.Engine
	groups map[string]*rules.Group

	mu      sync.Mutex
	targets map[string]*target // by job
}

type target struct {
	url  string
	seen map[string]labels.Labels // the series of the last scrape
}

func newWatcher(t *testing.T) (w *watcher, stop func()) {
	t.Helper()
	w = &watcher{t: t, db: teststorage.New(t), targets: map[string]*target{},
		engine: promqltest.NewTestEngine(t, false, 5*time.Minute, 10_000_000)}
	w.groups = loadRules(t, &rules.ManagerOptions{Context: t.Context(), AppendableV2: w.db,
		QueryFunc: rules.EngineQueryFunc(w.engine, w.db)})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.step()
			}
		}
	})
	return w, func() { cancel(); running.Wait() }
}

// add has a service watched under a job.
func (w *watcher) add(job, url string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets[job] = &target{url: url, seen: map[string]labels.Labels{}}
}

func (w *watcher) remove(job string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.targets, job)
}

func (w *watcher) step() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var scraping sync.WaitGroup
	texts := make(map[string]string, len(w.targets))
	var mu sync.Mutex
	for job, target := range w.targets {
		scraping.Go(func() {
			text := get(w.t, http.MethodGet, target.url+"/metrics", "", http.StatusOK)
			mu.Lock()
			defer mu.Unlock()
			texts[job] = text
		})
	}
	scraping.Wait()
	now := time.Now()
	app := w.db.AppenderV2(w.t.Context())
	for job, text := range texts {
		w.targets[job].store(w.t, app, now, job, families(w.t, text))
	}
	if err := app.Commit(); err != nil {
		w.t.Error(err)
	}
	for _, g := range w.groups {
		g.Eval(w.t.Context(), now)
	}
}

// store appends the samples of a scrape, and marks the series that have disappeared as stale.
func (g *target) store(t *testing.T, app storage.AppenderV2, at time.Time, job string,
	all map[string]*dto.MetricFamily) {
	now := map[string]labels.Labels{}
	add := func(l labels.Labels, v float64) {
		if _, err := app.Append(0, l, 0, at.UnixMilli(), v, nil, nil,
			storage.AppendV2Options{}); err != nil {
			t.Errorf("%s: %v", l, err)
		}
	}
	sample := func(name string, m *dto.Metric, v float64, more ...string) {
		b := labels.NewBuilder(labels.FromStrings(append([]string{labels.MetricName, name, "job", job,
			"instance", "a:1"}, more...)...))
		for _, l := range m.GetLabel() {
			b.Set(l.GetName(), l.GetValue())
		}
		l := b.Labels()
		now[l.String()] = l
		add(l, v)
	}
	for name, f := range all {
		for _, m := range f.GetMetric() {
			switch {
			case m.Histogram != nil:
				for _, bucket := range m.GetHistogram().GetBucket() {
					sample(name+"_bucket", m, float64(bucket.GetCumulativeCount()), "le",
						strconv.FormatFloat(bucket.GetUpperBound(), 'g', -1, 64))
				}
				sample(name+"_count", m, float64(m.GetHistogram().GetSampleCount()))
			case m.Counter != nil:
				sample(name, m, m.GetCounter().GetValue())
			case m.Gauge != nil:
				sample(name, m, m.GetGauge().GetValue())
			}
		}
	}
	for key, l := range g.seen {
		if _, still := now[key]; !still {
			add(l, math.Float64frombits(value.StaleNaN))
		}
	}
	g.seen = now
}

// raised returns what is raised of an alert about a job.
func (w *watcher) raised(alert, job string) (about []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.groups {
		for _, r := range g.AlertingRules() {
			for _, a := range r.ActiveAlerts() {
				if r.Name() == alert && a.State == rules.StateFiring && a.Labels.Get("job") == job {
					about = append(about, alertText(a.Labels.Map(), a.Annotations.Map()))
				}
			}
			if err := r.LastError(); err != nil {
				w.t.Errorf("%s: %v", r.Name(), err)
			}
		}
	}
	return about
}
