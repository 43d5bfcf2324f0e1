// Package faults holds the tests of package consumer that kill servers of their own.
package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/topology"
)

func TestMain(m *testing.M) { consumertest.Main(m) }

func orders(from, to int) (payloads []events.Payload) {
	for n := from; n < to; n++ {
		payloads = append(payloads, consumertest.Placed{Order: fmt.Sprint("order ", n),
			Customer: fmt.Sprint("customer ", n%5), Amount: 10})
	}
	return payloads
}

// While the database is down consumption pauses; no attempt is spent, and everything takes effect
// once when it is back: events, a retry that was due, and a deadline.
func TestTheDatabaseGoesDownAndComesBack(t *testing.T) {
	t.Parallel()
	servers := servertest.PrivatePostgres(t)
	if err := consumertest.Migrate(t.Context(), withSSLMode(servers.PostgresURL)); err != nil {
		t.Fatal(err)
	}
	amqpURL, _ := servertest.Vhost(t)
	w := consumertest.On(t, amqpURL, withSSLMode(servers.PostgresURL))
	first, stopFirst := w.Bank()
	second, stopSecond := w.Bank()
	w.Consumers(topology.QueueOf(consumertest.Service), 2)
	w.PublishAs(consumertest.Shop, consumertest.Reminded{Order: "reminder",
		At: time.Now().Add(2 * time.Second)})
	w.Becomes(1, `SELECT count(*) FROM pending`)
	for round := range 3 {
		w.PublishAs(consumertest.Shop, orders(200*round, 200*round+100)...)
		if err := servers.KillPostgres(); err != nil {
			t.Fatal(err)
		}
		w.PublishAs(consumertest.Shop, orders(200*round+100, 200*round+200)...)
		if err := servers.RestartPostgres(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.Eventually("all took effect", func() (bool, string) {
		var n int
		err := w.DB.GetContext(t.Context(), &n, `SELECT count(*) FROM payments`)
		return n == 600, fmt.Sprintf("%d of 600: %v", n, err)
	})
	w.Becomes(1, `SELECT count(*) FROM outbox WHERE type = 'payment.overdue'`)
	stopFirst()
	stopSecond()
	w.Drained()
	if n := w.Int(`SELECT -sum(balance) FROM accounts`); n != 6000 {
		t.Errorf("%d was captured, want 6000", n)
	}
	if n := w.Int(`SELECT count(*) FROM outbox WHERE type = 'payment.captured'`); n != 600 ||
		w.Int(`SELECT count(*) FROM inbox`) != 601 {
		t.Errorf("said %d times; %s", n, w.Diagnosis())
	}
	a, b := first.Stats(), second.Stats()
	if a.Delayed+a.Parked+b.Delayed+b.Parked != 0 {
		t.Errorf("stats %+v and %+v: an outage has cost attempts", a, b)
	}
}

// The broker is restarted and killed under two replicas with work in hand: sessions begin anew,
// what was delivered twice is a duplicate, nothing is lost.
func TestTheBrokerGoesDownAndComesBack(t *testing.T) {
	t.Parallel()
	servers := servertest.Private(t)
	url := withSSLMode(servers.PostgresURL)
	if err := consumertest.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	w := consumertest.On(t, servers.AMQPURL, url)
	first, stopFirst := w.Bank()
	second, stopSecond := w.Bank()
	w.PublishAs(consumertest.Shop, orders(0, 3000)...)
	w.Eventually("some took effect",
		func() (bool, string) { n := handled(first, second); return n > 100, fmt.Sprint(n) })
	if err := servers.KillRabbitMQ(); err != nil {
		t.Fatal(err)
	}
	if err := servers.RestartRabbitMQ(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Becomes(3000, `SELECT count(*) FROM payments`)
	w.PublishAs(consumertest.Shop, orders(3000, 3100)...)
	w.Becomes(3100, `SELECT count(*) FROM payments`)
	stopFirst()
	stopSecond()
	w.Drained()
	if n := w.Int(`SELECT -sum(balance) FROM accounts`); n != 31000 || w.Int(`SELECT count(*)
		FROM pending`) != 0 {
		t.Errorf("%d was captured; %s", n, w.Diagnosis())
	}
	if n := handled(first, second); n != 3100 {
		t.Errorf("%d of 3100 were handled", n)
	}
}

// A handler and a call that hang do not keep the process from ending; they are cut off with it.
func TestAShutdownIsBounded(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.RetryByHand()
	var calls atomic.Int32
	entered, leave := make(chan string, 9), make(chan struct{})
	t.Cleanup(func() { close(leave) })
	hang := func(name string) error { entered <- name; <-leave; return errors.New("too late") }
	c := w.Consumer(consumertest.Service, nil,
		consumer.Handle(func(context.Context, *sqlx.Tx,
			events.Of[consumertest.Noted]) error {
			return hang("handler")
		}),
		consumer.Call(func(context.Context, events.Of[consumertest.Asked]) (events.Payload, error) {
			if calls.Add(1) == 1 {
				return nil, errors.New("not now")
			}
			return nil, hang("call")
		}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	w.PublishAs(consumertest.Shop, consumertest.Asked{Order: "o"})
	w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1`)
	w.Exec(`UPDATE pending SET due = now()`)
	<-entered
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o"})
	<-entered
	cancel()
	select {
	case <-done:
	case <-time.After(25 * time.Second):
		t.Fatal("it has not ended after 25 s")
	}
	w.Holds(topology.QueueOf(consumertest.Service), 1)
	// A call that outlives its time-out before the end has failed once more.
	if w.Int(`SELECT count(*) FROM pending WHERE attempts BETWEEN 1 AND 2`) != 1 {
		t.Error(w.Diagnosis())
	}
}

func handled(replicas ...*consumertest.Consumer) (n int64) {
	for _, c := range replicas {
		n += c.Stats().Handled
	}
	return n
}

func withSSLMode(url string) string {
	if strings.Contains(url, "sslmode") {
		return url
	}
	return url + "?sslmode=disable"
}
