package web

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
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

// Group is Once for a kind of request that many make at the same time: what comes in while one
// transaction runs is the next, so that many requests cost little more than one, and a lone one is
// not kept waiting. When a transaction fails each of its requests is run by itself, so that only
// the culprit suffers.
type Group[C any] struct {
	t      Transactor
	effect func(ctx context.Context, tx *sqlx.Tx, commands []C) ([]Answer, error)

	mu      sync.Mutex
	waiting []*queued[C]
	running int // transactions
}

// NewGroup returns a group whose effect runs commands in a transaction, and returns an answer for
// each.
func NewGroup[C any](t Transactor, effect func(ctx context.Context, tx *sqlx.Tx,
	commands []C) ([]Answer, error)) *Group[C] {
	return &Group[C]{t: t, effect: effect}
}

// queued is a request in a group.
type queued[C any] struct {
	ctx     context.Context
	request idempotency.Request
	command C
	result  idempotency.Result
	done    chan struct{}
}

// Once runs a command once for its Idempotency-Key, and answers. A client that goes meanwhile
// learns what became of it when it asks again.
func (g *Group[C]) Once(w http.ResponseWriter, r *http.Request, body []byte, command C) error {
	request, err := requestOf(r, body)
	if err != nil {
		return err
	}
	a := &queued[C]{ctx: r.Context(), request: request, command: command, done: make(chan struct{})}
	g.enter(a)
	select {
	case <-a.done:
	case <-r.Context().Done():
		g.leave(a)
		return r.Context().Err()
	}
	if a.result.Err != nil {
		return a.result.Err
	}
	respond(w, a.result.Response, a.result.Replayed)
	return nil
}

// enter lets a request wait for its turn, and sees to it that somebody takes it.
func (g *Group[C]) enter(a *queued[C]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, a)
	if g.running < groupTransactions {
		g.running++
		go g.work()
	}
}

// leave forgets a request that nobody waits for any more, unless a transaction has it.
func (g *Group[C]) leave(a *queued[C]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, func(other *queued[C]) bool { return other == a })
}

// next takes what waits, nil when there is nothing: then the caller ends.
func (g *Group[C]) next() []*queued[C] {
	g.mu.Lock()
	defer g.mu.Unlock()
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
		results, err := g.bounded(batch)
		// While the database is away, one by one would be no better.
		if class := postgres.ClassOf(err); err != nil && len(batch) > 1 && class != postgres.Lost &&
			class != postgres.Busy {
			for i, a := range batch {
				err := a.ctx.Err() // nobody waits for it any more
				if err == nil {
					results, err = g.bounded(batch[i : i+1])
				}
				finish(batch[i:i+1], results, err)
			}
			continue
		}
		finish(batch, results, err)
	}
}

func finish[C any](batch []*queued[C], results []idempotency.Result, err error) {
	for i, a := range batch {
		if err != nil {
			a.result = idempotency.Result{Err: err}
		} else {
			a.result = results[i]
		}
		close(a.done)
	}
}

// bounded is run for no longer than a request may take: on a line that has gone silent the driver
// waits, whatever its context says, and all others would wait with it. Its transaction goes on when
// a client goes, for it is not the only one.
func (g *Group[C]) bounded(batch []*queued[C]) ([]idempotency.Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(batch[0].ctx), requestTimeout)
	type outcome struct {
		results []idempotency.Result
		err     error
	}
	ended := make(chan outcome, 1)
	go func() {
		defer cancel()
		results, err := g.run(ctx, batch)
		ended <- outcome{results, err}
	}()
	select {
	case o := <-ended:
		return o.results, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-ended: // cancel comes after it
		return o.results, o.err
	default:
		return nil, ctx.Err()
	}
}

// run is one transaction.
func (g *Group[C]) run(ctx context.Context, batch []*queued[C]) (results []idempotency.Result,
	err error) {
	requests := make([]idempotency.Request, len(batch))
	for i, a := range batch {
		requests[i] = a.request
	}
	err = g.t.Tx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		defer func() { // it fails its requests, not the process
			if cause := recover(); cause != nil {
				err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
			}
		}()
		results, err = idempotency.DoAll(ctx, tx, requests, func(todo []int) ([]idempotency.Response,
			error) {
			commands := make([]C, len(todo))
			for n, i := range todo {
				commands[n] = batch[i].command
			}
			answers, err := g.effect(ctx, tx, commands)
			if err != nil {
				return nil, err
			}
			responses := make([]idempotency.Response, len(commands))
			for n := range commands {
				if responses[n], err = encode(answers[n]); err != nil {
					return nil, err
				}
			}
			return responses, nil
		})
		return err
	})
	return results, err
}
