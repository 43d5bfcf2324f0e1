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
	maxGroup        = 100 // requests in one transaction
	maxTransactions = 2   // that run at a time
)

// Group is Once for a kind of request that many clients make at the same time. The requests that
// arrive while a transaction runs share the next transaction, so many requests cost little more
// than one, and a single request does not wait. If a transaction fails, each of its requests runs
// in its own, so that only the faulty request fails.
type Group[C any] struct {
	t      Transactor
	effect func(ctx context.Context, tx *sqlx.Tx, commands []C) ([]Answer, error)

	mu      sync.Mutex
	waiting []*queued[C]
	running int // number of transactions
}

// NewGroup returns a group. Its effect runs the commands in a transaction and returns one answer
// for each.
func NewGroup[C any](t Transactor, effect func(ctx context.Context, tx *sqlx.Tx,
	commands []C) ([]Answer, error)) *Group[C] {
	return &Group[C]{t: t, effect: effect}
}

// queued is a request that waits for a transaction or is in one.
type queued[C any] struct {
	ctx     context.Context
	request idempotency.Request
	command C
	result  idempotency.Result
	done    chan struct{}
}

// Once runs a command once for its Idempotency-Key and answers. A client that disconnects learns
// the result when it repeats the request.
func (g *Group[C]) Once(w http.ResponseWriter, r *http.Request, body []byte, command C) error {
	request, err := requestOf(r, body)
	if err != nil {
		return err
	}
	a := &queued[C]{ctx: r.Context(), request: request, command: command, done: make(chan struct{})}
	g.add(a)
	select {
	case <-a.done:
	case <-r.Context().Done():
		g.remove(a)
		return r.Context().Err()
	}
	if a.result.Err != nil {
		return a.result.Err
	}
	respond(w, a.result.Response, a.result.Replayed)
	return nil
}

// add queues a request and starts a worker unless enough are running.
func (g *Group[C]) add(a *queued[C]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, a)
	if g.running < maxTransactions {
		g.running++
		go g.work()
	}
}

// remove removes a request whose client has disconnected, unless it is already in a transaction.
func (g *Group[C]) remove(a *queued[C]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, func(other *queued[C]) bool { return other == a })
}

// next returns the next batch of waiting requests. If there are none it returns nil, and the
// calling worker must end.
func (g *Group[C]) next() []*queued[C] {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), maxGroup)
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
		results, err := g.runWithTimeout(batch)
		// Running them one by one does not help while the database is away or busy.
		if class := postgres.ClassOf(err); err != nil && len(batch) > 1 && class != postgres.Lost &&
			class != postgres.Busy {
			for i, a := range batch {
				err := a.ctx.Err() // set if its client has disconnected
				if err == nil {
					results, err = g.runWithTimeout(batch[i : i+1])
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

// runWithTimeout is run with a time limit. On a silent connection the driver ignores its context
// and would block all other requests; runWithTimeout returns anyway. The transaction does not end
// when one client disconnects, because it also serves other clients.
func (g *Group[C]) runWithTimeout(batch []*queued[C]) ([]idempotency.Result, error) {
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
	case o := <-ended: // the result is sent before cancel runs
		return o.results, o.err
	default:
		return nil, ctx.Err()
	}
}

// run handles a batch in one transaction.
func (g *Group[C]) run(ctx context.Context, batch []*queued[C]) (results []idempotency.Result,
	err error) {
	requests := make([]idempotency.Request, len(batch))
	for i, a := range batch {
		requests[i] = a.request
	}
	err = g.t.Tx(ctx, func(ctx context.Context, tx *sqlx.Tx) (err error) {
		defer func() { // a panic fails these requests, not the process
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
