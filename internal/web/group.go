package web

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/postgres"
)

// The bounds of a group.
const (
	groupMost         = 100 // requests in one transaction
	groupTransactions = 2   // at a time
)

// Group is Once for a kind of request that many make at the same time: what comes in while one transaction
// runs is the next, so that many requests cost little more than one, and a lone one is not kept waiting.
// When a transaction fails each of its requests is run by itself, so that only the culprit suffers.
type Group[C any] struct {
	t      Transactor
	effect func(ctx context.Context, tx *sqlx.Tx, commands []C) ([]Answer, error)

	mu      sync.Mutex
	waiting []*asked[C]
	running int // transactions
}

// NewGroup returns a group whose effect runs commands in a transaction, and returns an answer for each.
func NewGroup[C any](t Transactor, effect func(ctx context.Context, tx *sqlx.Tx, commands []C) ([]Answer, error)) *Group[C] {
	return &Group[C]{t: t, effect: effect}
}

// asked is a request in a group.
type asked[C any] struct {
	ctx     context.Context
	request idempotency.Request
	command C
	result  idempotency.Result
	done    chan struct{}
}

// Once runs a command once for its Idempotency-Key, and answers. A client that goes meanwhile learns what
// became of it when it asks again.
func (g *Group[C]) Once(w http.ResponseWriter, r *http.Request, body []byte, command C) error {
	request, err := requestOf(r, body)
	if err != nil {
		return err
	}
	a := &asked[C]{ctx: r.Context(), request: request, command: command, done: make(chan struct{})}
	g.enter(a)
	select {
	case <-a.done:
	case <-r.Context().Done():
		return r.Context().Err()
	}
	if a.result.Err != nil {
		return a.result.Err
	}
	respond(w, a.result.Response, a.result.Replayed)
	return nil
}

// enter lets a request wait for its turn, and sees to it that somebody takes it.
func (g *Group[C]) enter(a *asked[C]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, a)
	if g.running < groupTransactions {
		g.running++
		go g.work()
	}
}

// next takes what waits and has not been given up, nil when there is nothing: then the caller ends.
func (g *Group[C]) next() []*asked[C] {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, func(a *asked[C]) bool { return a.ctx.Err() != nil })
	n := min(len(g.waiting), groupMost)
	if n == 0 {
		g.running--
		return nil
	}
	batch := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	return batch
}

func (g *Group[C]) work() {
	for batch := g.next(); batch != nil; batch = g.next() {
		err := g.run(batch)
		// While the database is away, one by one would be no better.
		if class := postgres.ClassOf(err); err != nil && len(batch) > 1 && class != postgres.Lost && class != postgres.Busy {
			for i, a := range batch {
				err := a.ctx.Err() // nobody waits for it any more
				if err == nil {
					err = g.run(batch[i : i+1])
				}
				g.finish(batch[i:i+1], err)
			}
			continue
		}
		g.finish(batch, err)
	}
}

func (g *Group[C]) finish(batch []*asked[C], err error) {
	for _, a := range batch {
		if err != nil {
			a.result = idempotency.Result{Err: err}
		}
		close(a.done)
	}
}

// run is one transaction. It goes on when a client goes, for it is not the only one.
func (g *Group[C]) run(batch []*asked[C]) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(batch[0].ctx), requestTimeout)
	defer cancel()
	requests := make([]idempotency.Request, len(batch))
	for i, a := range batch {
		requests[i] = a.request
	}
	var results []idempotency.Result
	err := InTx(ctx, g.t, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		results, err = idempotency.DoAll(ctx, tx, requests, func(todo []int) ([]idempotency.Response, error) {
			commands := make([]C, len(todo))
			for n, i := range todo {
				commands[n] = batch[i].command
			}
			answers, err := g.effect(ctx, tx, commands)
			if err != nil {
				return nil, err
			}
			responses := make([]idempotency.Response, len(answers))
			for n, answer := range answers {
				if responses[n], err = encode(answer); err != nil {
					return nil, err
				}
			}
			return responses, nil
		})
		return err
	})
	if err != nil {
		return err
	}
	for i, a := range batch {
		a.result = results[i]
	}
	return nil
}
