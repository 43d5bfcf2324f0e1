package consumer_test

import (
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// ledger is the smallest effect: one row for each event.
type ledger struct {
	Payments consumer.Rows[string, consumertest.Payment] `table:"payments" key:"order_id"`
}

// BenchmarkConsume handles b.N events from a full queue, exactly once in effect:
//
//	go test ./consumer -run '^$' -bench Consume -benchtime 20000x
//
// Row is one inserted row for each event; capture is the bank: two tables and an event in the
// outbox. Bare takes and acknowledges them and does nothing else: what the broker gives at most, to
// compare.
func BenchmarkConsume(b *testing.B) {
	row := consumer.Participant[ledger]{
		Name:  consumertest.Service,
		Locks: func(s *ledger, e events.Event) { s.Payments.Lock(e.Data.Subject()) },
		React: []consumer.Reaction[ledger]{consumer.On(func(s *ledger,
			e events.Of[consumertest.Placed]) (consumer.Effects, error) {
			s.Payments.Set(e.Data.Order, consumertest.Payment{Order: e.Data.Order, Customer: e.Data.Customer,
				Amount: e.Data.Amount, Status: "seen"})
			return consumer.Effects{}, nil
		})},
	}
	b.Run("bare", func(b *testing.B) {
		w := prefilled(b)
		session, err := rabbit.Open(b.Context(), w.AMQP, "bench/bare")
		if err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		deliveries, err := rabbit.Subscribe(session, queue, "", consumer.Prefetch,
			consumer.PrefetchBytes)
		if err != nil {
			b.Fatal(err)
		}
		defer deliveries.Close()
		batch := make([]amqp.Delivery, 0, consumer.BatchMax)
		for n := range b.N {
			if batch = append(batch, <-deliveries.C()); len(batch) == cap(batch) || n == b.N-1 {
				if err := deliveries.Ack(batch...); err != nil {
					b.Fatal(err)
				}
				batch = batch[:0]
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	for name, handler := range map[string]consumer.Handler{"row": row.Handler(),
		"capture": consumertest.Participant(nil).Handler()} {
		b.Run(name, func(b *testing.B) {
			w := prefilled(b)
			c := w.Consumer(consumertest.Service, nil, handler)
			b.ResetTimer()
			stop := w.Start(c)
			w.Eventually("all are handled", func() (bool, string) {
				return c.Stats().Handled == int64(b.N),
					fmt.Sprint(c.Stats())
			})
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(b.N)/float64(c.Stats().Batches), "events/batch")
			stop()
			w.Drained()
		})
	}
}

func prefilled(b *testing.B) *consumertest.Env {
	b.Helper()
	w := consumertest.New(b)
	payloads := make([]events.Payload, b.N)
	for n := range payloads {
		payloads[n] = consumertest.Placed{Order: fmt.Sprint("order ", n),
			Customer: fmt.Sprint("customer ", n%1000), Amount: 10}
	}
	w.PublishAs(consumertest.Shop, payloads...)
	return w
}
