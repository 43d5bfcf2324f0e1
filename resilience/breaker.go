package resilience

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/sony/gobreaker/v2"
)

// The bounds of a breaker, unless it says otherwise.
const (
	DefaultFailures = 5
	DefaultOpen     = time.Minute
	rampMost        = 64                     // calls at a time, from which on the ramp is over
	rampPause       = 100 * time.Millisecond // for a call that the ramp does not let through
	probePause      = 500 * time.Millisecond // while another replica probes
)

// Breaker is a circuit breaker: after Failures calls in a row have failed it is open, and makes
// none; after Open it is half-open and lets a single one through, which closes or opens it again.
// When it closes, the calls at a time are bounded by one more than have succeeded since, so that
// what has waited does not fall upon a peer that has just recovered.
//
// Fill in the fields, then use it; it must not be copied. It is that of one replica: each learns by
// itself, but with Probe not at the same time.
type Breaker struct {
	Name     string
	Failures uint32        // 0: DefaultFailures
	Open     time.Duration // 0: DefaultOpen
	// Probe is asked before the half-open breaker lets its single call through, and leave is called
	// after it: where all replicas have their breakers open, one at a time finds out whether the peer
	// is back. nil: every replica may. A quadrille.Service sets it.
	Probe func(ctx context.Context) (leave func(), may bool)
	Log   zerolog.Logger

	once    sync.Once
	breaker *gobreaker.CircuitBreaker[struct{}]

	mu       sync.Mutex
	since    time.Time // of the last change
	opened   int64
	refused  int64
	inFlight int
	most     int // calls at a time; 0: no bound
}

// BreakerStats is a breaker as a person sees it.
type BreakerStats struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // closed, open or half-open
	Since    time.Time `json:"since,omitzero"`
	Failures uint32    `json:"failures"` // in a row
	Opened   int64     `json:"opened"`   // times, since the start of the process
	Refused  int64     `json:"refused"`  // calls that were not made
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
			// Who gave up asking says nothing about the peer.
			IsExcluded: func(err error) bool {
				return errors.Is(err, context.Canceled) ||
					isNotMade(err)
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
		b.most = 1
	}
	b.Log.Warn().Str("breaker", b.Name).Stringer("from", from).Stringer("to",
		to).Msg("breaker changed")
}

// Guard makes calls, or returns a NotMadeError with the time until it will let one through. A call
// that fails and leaves the breaker open, as the one that opened it does and the one that asks
// whether the peer is back, returns a PeerDownError.
func (b *Breaker) Guard() Guard {
	b.prepare()
	return func(ctx context.Context, call func(context.Context) error) error {
		if !b.enter() {
			return b.notMade("the breaker "+b.Name+" lets calls through one by one", rampPause)
		}
		succeeded := false
		defer func() { b.leave(succeeded) }() // after a panic, too
		if b.Probe != nil && b.breaker.State() == gobreaker.StateHalfOpen {
			leave, may := b.Probe(ctx)
			if !may {
				return b.notMade("another replica asks whether the peer of the breaker "+b.Name+" is back",
					probePause)
			}
			defer leave()
		}
		_, err := b.breaker.Execute(func() (struct{}, error) { return struct{}{}, returned(ctx, call) })
		succeeded = err == nil || isAnswer(err)
		switch {
		case errors.Is(err, gobreaker.ErrOpenState):
			return b.notMade("the breaker "+b.Name+" is open", b.remaining())
		case errors.Is(err, gobreaker.ErrTooManyRequests): // soon decided
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
	if b.most > 0 && b.inFlight >= b.most {
		return false
	}
	b.inFlight++
	return true
}

func (b *Breaker) leave(succeeded bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inFlight--
	if succeeded && b.most > 0 {
		if b.most++; b.most > rampMost {
			b.most = 0
		}
	}
}

func (b *Breaker) notMade(why string, after time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused++
	return NotMadeError{Why: why, After: after}
}

// remaining is how long an open breaker stays so.
func (b *Breaker) remaining() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(rampPause, time.Until(b.since.Add(b.open())))
}

// Stats may be called at any time.
func (b *Breaker) Stats() BreakerStats {
	b.prepare()
	state, counts := b.breaker.State(), b.breaker.Counts()
	b.mu.Lock()
	defer b.mu.Unlock()
	return BreakerStats{
		Name: b.Name, State: state.String(), Since: b.since, Failures: counts.ConsecutiveFailures,
		Opened: b.opened, Refused: b.refused,
	}
}
