package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/resilience"
)

// After two failures in a row the breaker makes no call. The error says when to try again, and
// package consumer does so without counting an attempt.
func ExampleChain() {
	breaker := &resilience.Breaker{Name: "provider", Failures: 2, Open: time.Minute}
	guard := resilience.Chain(breaker.Guard(), resilience.Timeout(5*time.Second),
		resilience.Bulkhead(10, 100))
	for range 3 {
		err := guard(context.Background(), func(context.Context) error {
			fmt.Println("calling")
			return errors.New("connection refused")
		})
		var notMade resilience.NotMadeError
		fmt.Println("made:", !errors.As(err, &notMade))
	}
	// Output:
	// calling
	// made: true
	// calling
	// made: true
	// made: false
}

// Pay is the request of the example, and Paid its answer.
type (
	Pay  struct{ Order string }
	Paid struct{ Order string }
)

func (Pay) EventType() string    { return "shop.pay" }
func (Paid) EventType() string   { return "shop.paid" }
func (p Pay) Subject() string    { return p.Order }
func (p Paid) Subject() string   { return p.Order }
func take(context.Context) error { return nil }

// As a component of the service, breakers are probed by one replica at a time, and the admin
// endpoint shows their states. The guard wraps the outside call.
func ExampleBreakers() {
	breaker := &resilience.Breaker{Name: "provider"}
	guard := resilience.Chain(breaker.Guard(), resilience.Timeout(5*time.Second))
	pay := consumer.Call(func(ctx context.Context, e events.Of[Pay]) (events.Payload, error) {
		if err := guard(ctx, take); err != nil {
			return nil, err
		}
		return Paid{Order: e.Data.Order}, nil
	})
	c := quadrille.Config{
		Name:       "shop",
		Handlers:   []consumer.Handler{pay},
		Components: []quadrille.Component{resilience.Breakers{breaker}},
	}
	fmt.Println(c.Handlers[0].Types(), breaker.Stats().State)
	// Output: [shop.pay] closed
}
