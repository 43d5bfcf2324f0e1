package resilience_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/resilience"
)

func notMade(err error) (after time.Duration, ok bool) {
	var n resilience.NotMadeError
	ok = errors.As(err, &n)
	return n.After, ok
}

// peerDown tells whether a call failed because the peer is down.
func peerDown(err error) (after time.Duration, ok bool) {
	var d resilience.PeerDownError
	ok = errors.As(err, &d)
	return d.After, ok
}

func TestBreakerOpensAndClosesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := &resilience.Breaker{Name: "provider", Log: zerolog.New(&log)}
		guard := b.Guard()
		for n := range resilience.DefaultFailures {
			err := guard(t.Context(), fail)
			if _, down := peerDown(err); !errors.Is(err, errDown) ||
				down != (n == resilience.DefaultFailures-1) {
				t.Fatalf("call %d: %v", n, err)
			}
		}
		<-time.After(20 * time.Second)
		called := false
		err := guard(t.Context(), func(context.Context) error { called = true; return nil })
		if after, ok := notMade(err); !ok || called || after != resilience.DefaultOpen-20*time.Second {
			t.Fatalf("an open breaker: %v, called %t, try again after %s", err, called, after)
		}
		<-time.After(40*time.Second + time.Millisecond) // half-open now
		err = guard(t.Context(), fail)
		if after, down := peerDown(err); !errors.Is(err, errDown) || !down ||
			after != resilience.DefaultOpen {
			t.Fatalf("the one call of a half-open breaker: %v, again after %s", err, after)
		}
		if _, ok := notMade(guard(t.Context(), fine)); !ok {
			t.Fatal("it did not open again")
		}
		<-time.After(resilience.DefaultOpen + time.Millisecond)
		if err := guard(t.Context(), fine); err != nil {
			t.Fatal(err)
		}
		if s := b.Stats(); s.State != "closed" || s.Opened != 2 || s.Refused != 2 ||
			s.Name != "provider" {
			t.Errorf("stats %+v", s)
		}
		for _, want := range []string{`"to":"open"`, `"to":"half-open"`, `"to":"closed"`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not tell of %s: %s", want, log.String())
			}
		}
	})
}

// A half-open breaker lets one call through, and after it has closed, one more than have succeeded.
func TestWhatHasWaitedDoesNotFallUponARecoveredPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &resilience.Breaker{Name: "provider"}
		guard := b.Guard()
		for range resilience.DefaultFailures {
			_ = guard(t.Context(), fail)
		}
		<-time.After(resilience.DefaultOpen + time.Millisecond)
		for _, want := range []int{1, 2, 4, 8, 16, 32, 64, 1000} { // half-open, then closed
			leave := make(chan struct{})
			var all sync.WaitGroup
			var mu sync.Mutex
			made := 0
			for range 1000 {
				all.Go(func() {
					_ = guard(t.Context(), func(context.Context) error {
						mu.Lock()
						made++
						mu.Unlock()
						<-leave
						return nil
					})
				})
			}
			synctest.Wait()
			close(leave)
			all.Wait()
			if made != want {
				t.Errorf("%d calls at a time, want %d", made, want)
			}
		}
	})
}

func TestWhatIsNoFailureOfThePeerDoesNotOpen(t *testing.T) {
	t.Parallel()
	b := &resilience.Breaker{Name: "provider", Failures: 1}
	guard := b.Guard()
	for _, err := range []error{resilience.Answered(errDown), context.Canceled,
		resilience.NotMadeError{Why: "full"}} {
		if got := guard(t.Context(), func(context.Context) error { return err }); !errors.Is(got, err) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if s := b.Stats(); s.State != "closed" || s.Opened != 0 {
		t.Errorf("stats %+v", s)
	}
	_ = guard(t.Context(), fail)
	if s := b.Stats(); s.State != "open" {
		t.Errorf("after one failure of one: %+v", s)
	}
}

// A call that was made and failed is not said to be not made, although the breaker refuses the next
// try.
func TestRetryHidesNoCallThatWasMade(t *testing.T) {
	t.Parallel()
	b := &resilience.Breaker{Name: "provider", Failures: 1}
	guard := resilience.Chain(resilience.Retry(resilience.Retries{Max: 3, First: time.Microsecond,
		Longest: time.Microsecond}), b.Guard())
	if err := guard(t.Context(), fail); !errors.Is(err, errDown) {
		t.Errorf("the first call: %v", err)
	}
	if _, ok := notMade(guard(t.Context(), fine)); !ok {
		t.Error("the breaker is not open")
	}
}

// A call that panics gives its place back.
func TestPanicInACallGivesItsPlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &resilience.Breaker{Name: "provider", Failures: 1}
		guard := b.Guard()
		_ = guard(t.Context(), fail)
		<-time.After(resilience.DefaultOpen + time.Millisecond)
		_ = guard(t.Context(), fine) // closed, with a ramp
		for range 3 {
			func() {
				defer func() { _ = recover() }()
				_ = guard(t.Context(), func(context.Context) error { panic("boom") })
			}()
			<-time.After(resilience.DefaultOpen + time.Millisecond)
		}
		if err := guard(t.Context(), fine); err != nil {
			t.Error(err)
		}
	})
}

// Who comes while the one call of a half-open breaker is under way waits for that, not for another
// minute.
func TestHalfOpenIsSoonDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &resilience.Breaker{Name: "provider", Failures: 1}
		guard := b.Guard()
		_ = guard(t.Context(), fail)
		<-time.After(resilience.DefaultOpen + time.Millisecond)
		err := guard(t.Context(), func(context.Context) error {
			if after, ok := notMade(guard(t.Context(), fine)); !ok || after > time.Second {
				t.Errorf("a second call: made %t, again after %s", !ok, after)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// Failures open a breaker when they come in a row: a peer that fails now and then, and answers in
// between, is not down.
func TestOnlyFailuresInARowOpen(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(context.Context) error{
		"a success": fine,
		"an answer": func(context.Context) error { return resilience.Answered(errDown) },
	} {
		b := &resilience.Breaker{Name: "provider"}
		guard := b.Guard()
		for range 10 {
			for range resilience.DefaultFailures - 1 {
				_ = guard(t.Context(), fail)
			}
			_ = guard(t.Context(), between)
		}
		if s := b.Stats(); s.State != "closed" || s.Opened != 0 || s.Failures != 0 {
			t.Errorf("%s in between: %+v", name, s)
		}
		for n := range resilience.DefaultFailures {
			if s := b.Stats(); s.State != "closed" || s.Failures != uint32(n) {
				t.Errorf("%s, then %d failures: %+v", name, n, s)
			}
			_ = guard(t.Context(), fail)
		}
		if s := b.Stats(); s.State != "open" {
			t.Errorf("%s, then %d failures in a row: %+v", name, resilience.DefaultFailures, s)
		}
	}
}

// After a breaker has closed, only calls that succeed let more through.
func TestFailuresLetNoMoreCallsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &resilience.Breaker{Name: "provider"}
		guard := b.Guard()
		for range resilience.DefaultFailures {
			_ = guard(t.Context(), fail)
		}
		<-time.After(resilience.DefaultOpen + time.Millisecond)
		_ = guard(t.Context(), fine) // it closes, and two may run
		for range resilience.DefaultFailures - 1 {
			_ = guard(t.Context(), fail)
		}
		leave := make(chan struct{})
		var made atomic.Int32
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				_ = guard(t.Context(), func(context.Context) error { made.Add(1); <-leave; return nil })
			})
		}
		synctest.Wait()
		close(leave)
		all.Wait()
		if made.Load() != 2 {
			t.Errorf("%d calls at a time, want 2", made.Load())
		}
	})
}

// The one call of a half-open breaker decides, even if it never returns or ends its goroutine.
func TestCallThatNeverReturnsLeavesNoBreakerHalfOpen(t *testing.T) {
	for name, bad := range map[string]func(release chan struct{}){
		"hangs": func(release chan struct{}) { <-release },
		"exits": func(chan struct{}) { runtime.Goexit() },
	} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			b := &resilience.Breaker{Name: "provider", Failures: 1}
			guard := b.Guard()
			_ = guard(t.Context(), fail)
			for range 2 {
				<-time.After(resilience.DefaultOpen + time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				err := guard(ctx, func(context.Context) error { bad(release); return nil })
				cancel()
				if _, down := peerDown(err); !down || errors.Is(err, resilience.ErrHung) != (name == "hangs") ||
					b.Stats().State != "open" {
					t.Errorf("%s: %v, %+v", name, err, b.Stats())
				}
			}
			<-time.After(resilience.DefaultOpen + time.Millisecond)
			if err := guard(t.Context(), fine); err != nil || b.Stats().State != "closed" {
				t.Errorf("%s, then well again: %v, %+v", name, err, b.Stats())
			}
			close(release)
		})
	}
}
