package resilience

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/sony/gobreaker/v2"

	"github.com/quadrille-go/quadrille/admin"
)

// The bounds of a breaker, unless its fields set others.
const (
	DefaultFailures = 5
	DefaultOpen     = time.Minute
	rampEnd         = 64                     // concurrent calls at which the ramp ends
	rampPause       = 100 * time.Millisecond // for a call that the ramp does not let through
	probePause      = 500 * time.Millisecond // while another replica probes
)

// Breaker is a circuit breaker. After Failures calls in a row have failed, it is open and makes no
// call. After the time Open it is half-open and makes a single call, which closes or opens it.
// After it has closed, it ramps up: it allows one more concurrent call than have succeeded since,
// so that a peer that has just recovered is not overloaded by all the calls that have waited.
//
// Set the fields before the first use; a Breaker must not be copied. Each replica has its own
// breaker, and with Probe only one replica at a time makes the call of its half-open breaker.
type Breaker struct {
	Name     string
	Failures uint32        // 0: DefaultFailures
	Open     time.Duration // 0: DefaultOpen
	// Probe is called before the single call of the half-open breaker. If it returns allowed, the call
	// is made and then release is called. With it, one replica at a time finds out whether the peer
	// has recovered. If Probe is nil, every replica does. A quadrille.Service sets it.
	Probe func(ctx context.Context) (release func(), allowed bool)
	Log   zerolog.Logger

	once    sync.Once
	breaker *gobreaker.CircuitBreaker[struct{}]

	mu          sync.Mutex
	since       time.Time // of the last change
	opened      int64
	refused     int64
	inFlight    int
	maxInFlight int // 0: no bound
}

func (b *Breaker) prepare() {
	b.once.Do(func() {
		failures := b.Failures
		if failures == 0 {
			failures = DefaultFailures
		}
		b.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
			Name: b.Name, MaxRequests: 1, Timeout: b.open(),
			ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failures },
			IsSuccessful: func(err error) bool { return err == nil || isAnswer(err) },
			// A call that was cancelled or not made says nothing about the peer.
			IsExcluded: func(err error) bool {
				return errors.Is(err, context.Canceled) || isNotMade(err)
			},
			OnStateChange: func(_ string, from, to gobreaker.State) { b.changed(from, to) },
		})
	})
}

func (b *Breaker) open() time.Duration {
	if b.Open == 0 {
		return DefaultOpen
	}
	return b.Open
}

func (b *Breaker) changed(from, to gobreaker.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = time.Now()
	if to == gobreaker.StateOpen {
		b.opened++
	}
	if to == gobreaker.StateClosed {
		b.maxInFlight = 1
	}
	b.Log.Warn().Str("breaker", b.Name).Stringer("from", from).Stringer("to",
		to).Msg("breaker changed")
}

// Guard returns a guard that makes a call, or returns a NotMadeError with the time until it makes
// one again. If a call fails and the breaker is then open, because this call opened it or was the
// single call of the half-open breaker, the error is a PeerDownError.
func (b *Breaker) Guard() Guard {
	b.prepare()
	return func(ctx context.Context, call func(context.Context) error) error {
		if !b.enter() {
			return b.notMade("the breaker "+b.Name+" has closed recently and still limits concurrent calls",
				rampPause)
		}
		succeeded := false
		defer func() { b.leave(succeeded) }() // also after a panic
		if b.Probe != nil && b.breaker.State() == gobreaker.StateHalfOpen {
			release, allowed := b.Probe(ctx)
			if !allowed {
				return b.notMade("another replica probes whether the peer of the breaker "+b.Name+
					" has recovered", probePause)
			}
			defer release()
		}
		_, err := b.breaker.Execute(func() (struct{}, error) { return struct{}{}, isolated(ctx, call) })
		succeeded = err == nil || isAnswer(err)
		switch {
		case errors.Is(err, gobreaker.ErrOpenState):
			return b.notMade("the breaker "+b.Name+" is open", b.remaining())
		case errors.Is(err, gobreaker.ErrTooManyRequests): // the single call ends soon
			return b.notMade("the breaker "+b.Name+" is half-open", rampPause)
		case err != nil && !succeeded && !isNotMade(err) && b.breaker.State() == gobreaker.StateOpen:
			return PeerDownError{Err: err, After: b.remaining()}
		}
		return err
	}
}

func (b *Breaker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.maxInFlight > 0 && b.inFlight >= b.maxInFlight {
		return false
	}
	b.inFlight++
	return true
}

func (b *Breaker) leave(succeeded bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inFlight--
	if succeeded && b.maxInFlight > 0 {
		if b.maxInFlight++; b.maxInFlight > rampEnd {
			b.maxInFlight = 0
		}
	}
}

func (b *Breaker) notMade(why string, after time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused++
	return NotMadeError{Why: why, After: after}
}

// remaining returns how long an open breaker stays open.
func (b *Breaker) remaining() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(rampPause, time.Until(b.since.Add(b.open())))
}

// Stats returns the state of the breaker. It is safe for concurrent use.
func (b *Breaker) Stats() admin.Breaker {
	b.prepare()
	state, counts := b.breaker.State(), b.breaker.Counts()
	b.mu.Lock()
	defer b.mu.Unlock()
	return admin.Breaker{
		Name: b.Name, State: admin.BreakerState(state.String()), Since: b.since,
		Failures: counts.ConsecutiveFailures,
		Opened:   b.opened, Refused: b.refused,
	}
}
