package main

import (
	"context"
	"sync"

	"github.com/quadrille-go/quadrille/events"
)

// limit is the amount above which the provider declines.
const limit = 100_000

// provider stands for a payment provider. A real one is reached over HTTP.
type provider struct {
	mu    sync.Mutex
	taken map[string]int64 // amounts by idempotency key
}

// take takes an amount, once for each key.
func (p *provider) take(_ context.Context, key string, amount int64) (declined string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if amount > limit {
		return "the amount is above the limit", nil
	}
	p.taken[key] = amount
	return "", nil
}

// pay makes the outside call. It may run more than once for a request, always with the same e.ID.
func (p *provider) pay(ctx context.Context, e events.Of[Pay]) (events.Payload, error) {
	reason, err := p.take(ctx, e.ID, e.Data.Amount)
	if err != nil {
		return nil, err // the call is made again later
	}
	if reason != "" {
		return Declined{Trip: e.Data.Trip, Reason: reason}, nil
	}
	return Paid{Trip: e.Data.Trip}, nil
}
