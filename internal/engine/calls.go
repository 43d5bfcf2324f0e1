package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
)

// The bounds of outside calls.
const (
	leaseMargin = 5 * time.Second // after the time-out of a call, before others may repeat it
)

// calls are the outside calls of a replica. What is due is claimed for as many as may be made,
// under a lease; each call runs by itself, with no transaction open; and what they returned is
// written down in batches: all that came in while the last was written.
type calls struct {
	*transactor
	decoder  *decoder
	answers  *answers
	slots    chan struct{} // one for each call that may be under way
	returned chan called
	underway sync.WaitGroup
	mu       sync.Mutex
	calling  map[string]int // calls under way, by type
}

// called is what one call returned.
type called struct {
	inbox.Pending
	request events.Event
	answer  events.Payload // nil: there is none
	failed  error
}

// newCalls returns the calls of a replica.
func newCalls(t *transactor, r *decoder, k *keeper) *calls {
	workers := t.handlers.bounds.CallWorkers
	return &calls{transactor: t, decoder: r, answers: &answers{transactor: t, keeper: k},
		slots: make(chan struct{}, workers), returned: make(chan called, workers),
		calling: map[string]int{}}
}

// run makes calls until ctx is done, and returns when those under way are written down.
func (k *calls) run(ctx context.Context) {
	var writing sync.WaitGroup
	writing.Go(func() { k.recordLoop(ctx) })
	poll(ctx, k.db, k.log, k.requested, k.claim)
	k.underway.Wait()
	close(k.returned)
	writing.Wait()
}

// claim starts calls for what is due, as many as there are slots. If the process dies, another
// replica makes them after the lease has ended.
func (k *calls) claim(ctx context.Context) (more bool, err error) {
	select {
	case k.slots <- struct{}{}:
	case <-ctx.Done():
		return false, nil
	}
	slots := 1
	for free := true; free; {
		select {
		case k.slots <- struct{}{}:
			slots++
		default:
			free = false
		}
	}
	claimed, err := k.lease(ctx, slots)
	if err != nil {
		claimed = nil // if the lease was written nevertheless, they are due when it ends
	}
	for range slots - len(claimed) {
		<-k.slots
	}
	for _, p := range claimed {
		k.count(p.Type, 1)
		k.underway.Go(func() {
			r := k.make(ctx, p)
			k.count(p.Type, -1)
			k.stats.call(p.Type, r.failed)
			if k.handlers.concurrency(p.Type) > 0 {
				k.hurryCalls() // the next one of its type was not claimed
			}
			k.returned <- r
		})
	}
	return len(claimed) == slots, err
}

// lease claims calls for some slots, each until its time-out is over.
func (k *calls) lease(ctx context.Context, slots int) ([]inbox.Pending, error) {
	most := k.mayBegin(slots)
	if len(most) == 0 {
		return nil, nil
	}
	return guard(context.WithoutCancel(ctx), k.hanging, k.handlers.bounds.HandlerTimeout,
		func(ctx context.Context) (claimed []inbox.Pending, err error) {
			err = k.once(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
				if claimed, err = k.inbox.ClaimEach(ctx, tx, slots, most); err != nil {
					return err
				}
				timeout := func(p inbox.Pending) time.Duration { return k.handlers.callTimeout(p.Type) }
				slices.SortStableFunc(claimed, func(a, b inbox.Pending) int {
					return cmp.Compare(timeout(a), timeout(b))
				})
				for rest := claimed; len(rest) > 0; {
					n := 1
					for n < len(rest) && timeout(rest[n]) == timeout(rest[0]) {
						n++
					}
					if err := k.inbox.Lease(ctx, tx, timeout(rest[0])+leaseMargin, rest[:n]...); err != nil {
						return err
					}
					rest = rest[n:]
				}
				return nil
			})
			return claimed, err
		})
}

// mayBegin returns how many calls of each type may begin. What is beyond the concurrency of its
// handler is not claimed: it would take the place of calls of other types.
func (k *calls) mayBegin(slots int) map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	most := map[string]int{}
	for _, callType := range k.handlers.calls {
		n := slots
		if bound := k.handlers.concurrency(callType); bound > 0 {
			n = min(n, bound-k.calling[callType])
		}
		if n > 0 {
			most[callType] = n
		}
	}
	return most
}

// count notes that a call has begun or ended.
func (k *calls) count(callType string, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calling[callType] += n
}

// make makes one call. Once begun it is not interrupted by a shutdown, only by its bound. A panic
// in it, or a hang, is a failure of this call.
func (k *calls) make(ctx context.Context, p inbox.Pending) called {
	if err := k.hanging.check(p.Type); err != nil {
		return called{Pending: p, failed: outsideError{RetryAfter(err, k.handlers.bounds.CallTimeout)}}
	}
	r, err := guard(context.WithoutCancel(ctx), k.hanging, k.handlers.callTimeout(p.Type),
		func(ctx context.Context) (r called, err error) {
			defer watched(ctx, p.Key, p.Type)()
			if r.request, err = k.decoder.pending(p); err != nil {
				return r, err
			}
			call := k.handlers.of[p.Type].Call
			if k.tracer != nil {
				span := k.beginCall(p, r.request)
				r.request.TraceParent, ctx = span.TraceParent, span.Into(ctx)
				defer func() { span.End(err) }()
			}
			if r.answer, err = call(k.withScope(ctx, p), r.request); err != nil {
				// It is not an error of the database, even if it looks like one.
				err = outsideError{err}
			}
			return r, err
		})
	if h, hung := errors.AsType[hungError](err); hung {
		err = outsideError{h}
	}
	r.Pending, r.failed = p, err
	return r
}

// recordLoop records what calls return, until there are none.
func (k *calls) recordLoop(ctx context.Context) {
	for r := range k.returned {
		batch := []called{r}
		for more := true; more; {
			select {
			case r, ok := <-k.returned:
				if more = ok; ok {
					batch = append(batch, r)
				}
			default:
				more = false
			}
		}
		k.answers.recordAll(ctx, batch)
		for range batch {
			<-k.slots
		}
	}
}
