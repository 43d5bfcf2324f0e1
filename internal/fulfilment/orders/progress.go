package orders

import (
	"context"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// The bounds of counting open orders.
const (
	countInterval = 5 * time.Second
	countTimeout  = 2 * time.Second
	countMost     = 10_000 // orders are counted up to here
	countFresh    = 30 * time.Second
)

// progress has the metrics of orders: how many are open, for how long, and how long those took that
// have ended. It is a component of the service, and a prometheus.Collector.
//
// An end is observed when the reaction runs. A transaction that is rolled back and repeated counts
// twice, which is rare, and a metric need not be more exact than that.
type progress struct {
	db      *sqlx.DB
	open    atomic.Pointer[openOrders] // nil: they were not counted yet
	counts  *prometheus.Desc
	oldest  *prometheus.Desc
	seconds *prometheus.HistogramVec
}

// openOrders are the orders that have not ended at one moment.
type openOrders struct {
	at     time.Time
	byAge  [4]int64
	oldest float64 // seconds
}

// ages names the elements of byAge, whose bounds are in openSQL.
func ages() [4]string { return [4]string{"0-1m", "1-5m", "5-15m", "15m+"} }

var (
	_ quadrille.Component  = (*progress)(nil)
	_ prometheus.Collector = (*progress)(nil)
)

func newProgress() *progress {
	return &progress{
		counts: prometheus.NewDesc("fulfilment_orders_open",
			"Orders that have not ended, up to 10000, by state and age.", []string{"state", "age"}, nil),
		oldest: prometheus.NewDesc("fulfilment_orders_oldest_open_seconds",
			"Age of the oldest order that has not ended.", nil, nil),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fulfilment_order_seconds",
			Help: "Time from the placing of an order to its end, by result.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900,
				3600}}, []string{"result"}),
	}
}

// Migrations implements quadrille.Component.
func (p *progress) Migrations() map[string]fs.FS { return nil }

// Open implements quadrille.Component.
func (p *progress) Open(_ context.Context, h quadrille.Host) error {
	p.db = h.DB
	return nil
}

// Run counts the open orders until ctx is done. While the database does not answer there is no
// count, and a collection does not wait for it.
func (p *progress) Run(ctx context.Context) {
	tick := time.NewTicker(countInterval)
	defer tick.Stop()
	for {
		_ = p.count(ctx) // the metrics of the service show that its database is away
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// openSQL counts open orders by age, through an index.
const openSQL = `
SELECT width_bucket(age, ARRAY[60, 300, 900]::float8[]) AS class, count(*) AS n, max(age) AS oldest
FROM (SELECT extract(epoch FROM now() - placed_at)::float8 AS age FROM orders
	WHERE state = 'placed' ORDER BY placed_at LIMIT $1) AS open
GROUP BY class`

func (p *progress) count(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	var rows []struct {
		Class  int     `db:"class"`
		N      int64   `db:"n"`
		Oldest float64 `db:"oldest"`
	}
	if err := p.db.SelectContext(ctx, &rows, openSQL, countMost); err != nil {
		return err
	}
	found := &openOrders{at: time.Now()}
	for _, r := range rows {
		found.byAge[r.Class], found.oldest = r.N, max(found.oldest, r.Oldest)
	}
	p.open.Store(found)
	return nil
}

// Describe implements prometheus.Collector.
func (p *progress) Describe(ch chan<- *prometheus.Desc) {
	ch <- p.counts
	ch <- p.oldest
	p.seconds.Describe(ch)
}

// Collect implements prometheus.Collector.
func (p *progress) Collect(ch chan<- prometheus.Metric) {
	p.seconds.Collect(ch)
	open := p.open.Load()
	if open == nil || time.Since(open.at) > countFresh {
		return
	}
	for i, age := range ages() {
		ch <- prometheus.MustNewConstMetric(p.counts, prometheus.GaugeValue, float64(open.byAge[i]),
			string(Placed), age)
	}
	ch <- prometheus.MustNewConstMetric(p.oldest, prometheus.GaugeValue, open.oldest)
}

// ended observes an order that has ended. When one was adopted, its beginning is not known.
func (p *progress) ended(o Order, at time.Time) {
	if !o.Adopted {
		p.seconds.WithLabelValues(string(o.State)).Observe(max(0, at.Sub(o.PlacedAt).Seconds()))
	}
}

// end is told of each order that has ended, by whichever reaction, and at what time.
type end func(o Order, at time.Time)

// watch makes a reaction that calls e when it has ended an order.
func watch[T events.Payload](e end,
	react func(*State, events.Of[T]) (consumer.Effects, error)) consumer.Reaction[State] {
	return consumer.On(func(s *State, event events.Of[T]) (consumer.Effects, error) {
		before, _ := s.Orders.Get(event.Data.Subject())
		effects, err := react(s, event)
		after, known := s.Orders.Get(event.Data.Subject())
		if err == nil && known && after.State != before.State && after.State != Placed {
			e(after, event.Time)
		}
		return effects, err
	})
}
