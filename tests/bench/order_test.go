// Package bench_test measures the order flow: how many orders a second the four services complete,
// and the time from the commit of an event to the commit of its effect on an idle system.
package bench_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/tests/system/env"
)

const (
	orderCount   = 10_000
	orderClients = 32
	pings        = 1000
	pingEvery    = 5 * time.Millisecond
)

// BenchmarkOrder places orders from concurrent clients as fast as they are accepted and waits until
// the last one is confirmed. The rate at which orders are accepted is the limit of the result.
func BenchmarkOrder(b *testing.B) {
	d := env.Start(b)
	d.StockUp()
	for b.Loop() {
		began := time.Now()
		place(b, d, began)
		accepted := time.Since(began)
		awaitConfirmed(b, d)
		b.ReportMetric(orderCount/time.Since(began).Seconds(), "orders/s")
		b.ReportMetric(orderCount/accepted.Seconds(), "accepted/s")
		describe(b, d)
	}
}

// BenchmarkOrderOnly accepts the orders while no service publishes or consumes, and then measures
// how fast they are fulfilled.
func BenchmarkOrderOnly(b *testing.B) {
	for b.Loop() {
		d := env.Prepare(b)
		d.StockUp()
		place(b, d, time.Now())
		began := time.Now()
		d.Run()
		awaitConfirmed(b, d)
		b.ReportMetric(orderCount/time.Since(began).Seconds(), "orders/s")
		describe(b, d)
	}
}

func describe(b *testing.B, d *env.Env) {
	for name, service := range d.Services {
		c := service.Stats().Consumer
		b.Logf("%-10s handled %d in %d transactions", name, c.Handled, c.Batches)
	}
}

func awaitConfirmed(b *testing.B, d *env.Env) {
	db, err := pg.Open(d.Databases["orders"])
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	inventory, err := pg.Open(d.Databases["inventory"])
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = inventory.Close() }()
	env.AwaitFor(b, 5*time.Minute, "the last order", func() (string, bool) {
		var open, committed int
		err := db.Get(&open, `SELECT count(*) FROM orders WHERE state = 'placed'`)
		if err == nil && open == 0 {
			err = inventory.Get(&committed, `SELECT count(*) FROM reservations WHERE state = 'committed'`)
		}
		return fmt.Sprint(open, " open, ", committed, " committed ", err), err == nil &&
			committed >= orderCount
	})
}

func place(b *testing.B, d *env.Env, began time.Time) {
	var clients sync.WaitGroup
	var next atomic.Int64
	for range orderClients {
		clients.Go(func() {
			for i := next.Add(1); i <= orderCount; i = next.Add(1) {
				if _, err := d.Order(fmt.Sprint(began.UnixNano(), "-", i), "DE"); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

type ping struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

func (ping) EventType() string { return "ping.sent" }
func (p ping) Subject() string { return p.ID }

// BenchmarkLatency publishes one event at a time and measures the time from its creation until its
// handler has run.
func BenchmarkLatency(b *testing.B) {
	amqp, _ := servertest.Vhost(b)
	took := make(chan time.Duration, pings)
	s, err := quadrille.New(quadrille.Config{
		Name: "pinger", Publishes: []events.Payload{ping{}}, AMQP: amqp, Database: env.EmptyDatabase(b),
		Handlers: []consumer.Handler{consumer.Handle(func(_ context.Context, _ *sqlx.Tx,
			e events.Of[ping]) error {
			took <- time.Since(e.Data.At)
			return nil
		})},
	})
	if err != nil {
		b.Fatal(err)
	}
	quadrilletest.Run(b, s)
	env.Await(b, "the service to be connected", func() (string, bool) {
		return "not connected", s.Connected()
	})
	for b.Loop() {
		all := make([]time.Duration, 0, pings)
		tick := time.NewTicker(pingEvery)
		for range pings {
			<-tick.C
			p := ping{ID: events.NewID(), At: time.Now()}
			if err := s.Tx(b.Context(), func(_ context.Context, tx *sqlx.Tx) error {
				return s.Publish(b.Context(), tx, p)
			}); err != nil {
				b.Fatal(err)
			}
			all = append(all, <-took)
		}
		tick.Stop()
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	}
}
