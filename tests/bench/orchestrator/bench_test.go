// Package orchestrator_test compares the choreography with an orchestrator: a durable workflow on
// the same PostgreSQL, whose steps run the reactions of the services on the databases of the
// services. It is a separate module, so that other packages do not depend on the orchestrator.
package orchestrator_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
	"github.com/quadrille-go/quadrille/tests/system/env"
)

const (
	backlog = 3000 // orders placed before the measurement
	atOnce  = 32   // simultaneous workflows
	singles = 200  // orders placed one after the other
)

func placed(d *env.Env, b *testing.B, key string) fulfilment.OrderPlaced {
	id, err := d.Order(key, "DE")
	if err != nil {
		b.Fatal(err)
	}
	return fulfilment.OrderPlaced{
		OrderID: id, Customer: "ada", Currency: "EUR",
		Lines:   []fulfilment.Line{{SKU: "teapot", Quantity: 1, UnitPrice: 100}},
		Address: fulfilment.Address{Name: "A", Street: "1", City: "B", PostalCode: "1", Country: "DE"},
	}
}

// step runs reactions of one service in a transaction of its database. They may be repeated,
// because a workflow repeats its steps after a crash.
func step[S any](ctx context.Context, s *quadrille.Service, p consumer.Participant[S],
	payloads ...events.Payload) (string, error) {
	batch := make([]events.Event, len(payloads))
	for i, payload := range payloads {
		batch[i] = events.Cause(events.Event{}, "/orchestrator", time.Now(), payload)
	}
	_, results, err := quadrille.Apply(ctx, s, p, batch...)
	if err != nil {
		return "", err
	}
	for _, r := range results {
		for _, published := range r.Effects.Publish {
			switch published.(type) {
			case fulfilment.PaymentDeclined, fulfilment.StockRejected, fulfilment.ShipmentFailed:
				return "", fmt.Errorf("refused: %+v", published)
			}
		}
	}
	return "", nil
}

// fulfil is the workflow of an order that is confirmed.
func fulfil(d *env.Env) func(ctx dbos.Context, o fulfilment.OrderPlaced) (string, error) {
	carrierless := shipping.Participant(false, shipping.Countries...)
	return func(ctx dbos.Context, o fulfilment.OrderPlaced) (string, error) {
		for _, f := range []func(ctx context.Context) (string, error){
			func(ctx context.Context) (string, error) {
				return step(ctx, d.Services["payments"], payments.Participant, o)
			},
			func(ctx context.Context) (string, error) {
				return step(ctx, d.Services["inventory"], inventory.Participant, o,
					fulfilment.PaymentCaptured{OrderID: o.OrderID, Customer: o.Customer, Amount: 100,
						Currency: o.Currency})
			},
			func(ctx context.Context) (string, error) {
				return step(ctx, d.Services["shipping"], carrierless, o,
					fulfilment.StockReserved{OrderID: o.OrderID})
			},
			func(ctx context.Context) (string, error) {
				return step(ctx, d.Services["orders"], orders.Participant,
					fulfilment.ShipmentScheduled{OrderID: o.OrderID})
			},
			func(ctx context.Context) (string, error) {
				return step(ctx, d.Services["inventory"], inventory.Participant,
					fulfilment.OrderConfirmed{OrderID: o.OrderID})
			},
		} {
			if _, err := dbos.RunAsStep(ctx, f); err != nil {
				return "", err
			}
		}
		return "", nil
	}
}

// orchestrated returns a function that runs the workflow of one order to its end.
func orchestrated(b *testing.B, d *env.Env) func(o fulfilment.OrderPlaced) error {
	ctx, err := dbos.NewContext(context.Background(), dbos.Config{AppName: "orders",
		DatabaseURL: env.EmptyDatabase(b), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	workflow := fulfil(d)
	dbos.RegisterWorkflow(ctx, workflow)
	if err := dbos.Launch(ctx); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = dbos.Shutdown(ctx, 10*time.Second) })
	return func(o fulfilment.OrderPlaced) error {
		handle, err := dbos.RunWorkflow(ctx, workflow, o, dbos.WithWorkflowID(o.OrderID))
		if err != nil {
			return err
		}
		_, err = handle.GetResult()
		return err
	}
}

func BenchmarkOrchestrated(b *testing.B) {
	d := env.WithoutPeers(b)
	d.StockUp()
	run := orchestrated(b, d)
	var all []fulfilment.OrderPlaced
	for i := range backlog {
		all = append(all, placed(d, b, fmt.Sprint("backlog-", i)))
	}
	for b.Loop() {
		began := time.Now()
		var running sync.WaitGroup
		work := make(chan fulfilment.OrderPlaced)
		for range atOnce {
			running.Go(func() {
				for o := range work {
					if err := run(o); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for _, o := range all {
			work <- o
		}
		close(work)
		running.Wait()
		b.ReportMetric(backlog/time.Since(began).Seconds(), "orders/s")
		var took []time.Duration
		for i := range singles {
			began := time.Now()
			if err := run(placed(d, b, fmt.Sprint("single-", i))); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		report(b, took)
	}
	confirmed(b, d, backlog+singles)
}

func BenchmarkChoreographed(b *testing.B) {
	d := env.WithoutPeers(b)
	d.StockUp()
	for i := range backlog {
		placed(d, b, fmt.Sprint("backlog-", i))
	}
	for b.Loop() {
		began := time.Now()
		d.Run()
		confirmed(b, d, backlog)
		b.ReportMetric(backlog/time.Since(began).Seconds(), "orders/s")
		db, err := d.Services["inventory"].DB(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		var took []time.Duration
		for i := range singles {
			began := time.Now()
			o := placed(d, b, fmt.Sprint("single-", i))
			for done := false; !done; {
				if err := db.Get(&done, `SELECT EXISTS (SELECT FROM reservations WHERE order_id = $1
					AND state = 'committed')`, o.OrderID); err != nil {
					b.Fatal(err)
				}
			}
			took = append(took, time.Since(began))
		}
		report(b, took)
	}
}

// confirmed waits until n orders are committed in inventory, the last service that handles an
// order.
func confirmed(b *testing.B, d *env.Env, n int) {
	b.Helper()
	db, err := d.Services["inventory"].DB(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	env.AwaitFor(b, 5*time.Minute, "all orders to be confirmed", func() (string, bool) {
		got := count(db)
		return got, got == fmt.Sprint(n)
	})
}

func count(db *sqlx.DB) (n string) {
	_ = db.Get(&n, `SELECT count(*)::text FROM reservations WHERE state = 'committed'`)
	return n
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
