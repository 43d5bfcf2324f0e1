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

// peerDown reports whether a call failed because the peer is down.
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
			t.Fatalf("an open breaker: %v, called %t, retry after %s", err, called, after)
		}
		<-time.After(40 * time.Second) // at the last moment of an open breaker
		if after, ok := notMade(guard(t.Context(), succeed)); !ok || after <= 0 {
			t.Fatalf("about to be half-open: not made %t, again after %s", ok, after)
		}
		<-time.After(time.Millisecond) // half-open now
		err = guard(t.Context(), fail)
		if after, down := peerDown(err); !errors.Is(err, errDown) || !down ||
			after != resilience.DefaultOpen {
			t.Fatalf("the single call of a half-open breaker: %v, retry after %s", err, after)
		}
		if _, ok := notMade(guard(t.Context(), succeed)); !ok {
			t.Fatal("the breaker did not open again")
		}
		<-time.After(resilience.DefaultOpen + time.Millisecond)
		if err := guard(t.Context(), succeed); err != nil {
			t.Fatal(err)
		}
		if s := b.Stats(); s.State != "closed" || s.Opened != 2 || s.Refused != 3 ||
			s.Name != "provider" {
			t.Errorf("stats %+v", s)
		}
		for _, want := range []string{`"to":"open"`, `"to":"half-open"`, `"to":"closed"`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log has no %s: %s", want, log.String())
			}
		}
	})
}

// A half-open breaker makes one call. After it has closed, it allows one more concurrent call than
// have succeeded.
func TestRecoveredPeerGetsCallsGradually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &resilience.Breaker{Name: "provider"}
		guard := b.Guard()
		for range resilience.DefaultFailures {
			_ = guard(t.Context(), fail)
		}
		<-time.After(resilience.DefaultOpen + time.Millisecond)
		for _, want := range []int{1, 2, 4, 8, 16, 32, 64, 1000} { // half-open, then closed
			release := make(chan struct{})
			var all sync.WaitGroup
			var mu sync.Mutex
			made := 0
			for range 1000 {
				all.Go(func() {
					_ = guard(t.Context(), func(context.Context) error {
						mu.Lock()
						made++
						mu.Unlock()
						<-release
						return nil
					})
				})
			}
			synctest.Wait()
			close(release)
			all.Wait()
			if made != want {
				t.Errorf("%d calls at a time, want %d", made, want)
			}
		}
	})
}

func TestOnlyFailuresOfThePeerCount(t *testing.T) {
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

// If a call was made and failed, and the breaker refuses the retry, the error is that of the call
// and not a NotMadeError.
func TestRetryHidesNoCallThatWasMade(t *testing.T) {
	t.Parallel()
	retry := resilience.Retry(resilience.Retries{Max: 3, First: time.Microsecond,
		Longest: time.Microsecond})
	b := &resilience.Breaker{Name: "provider", Failures: 1}
	guard := resilience.Chain(retry, b.Guard())
	if err := guard(t.Context(), fail); !errors.Is(err, errDown) {
		t.Errorf("the first call: %v", err)
	}
	if _, ok := notMade(guard(t.Context(), succeed)); !ok {
		t.Error("the breaker is not open")
	}
	tries := 0
	// the calls of others fill the bulkhead meanwhile
	err := retry(t.Context(), func(context.Context) error {
		if tries++; tries == 1 {
			return errDown
		}
		return resilience.NotMadeError{Why: "full"}
	})
	if _, ok := notMade(err); ok || !errors.Is(err, errDown) || tries != 2 {
		t.Errorf("one call that failed and one that was not made: %v after %d tries", err, tries)
	}
}

// Only a call that failed is one to a peer that is down: an answer and a call that was not made
// stay what they are, although the breaker has been opened by others meanwhile.
func TestOnlyAFailedCallTellsThatThePeerIsDown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		down bool
	}{
		"an answer":                  {resilience.Answered(errors.New("no")), false},
		"a call that was not made":   {resilience.NotMadeError{Why: "full"}, false},
		"a call that failed as well": {errors.New("reset"), true},
	} {
		b := &resilience.Breaker{Name: "provider", Failures: 1}
		guard := b.Guard()
		err := guard(t.Context(), func(context.Context) error {
			_ = guard(t.Context(), fail) // another call, at the same time
			return c.err
		})
		if _, down := peerDown(err); down != c.down || !errors.Is(err, c.err) ||
			b.Stats().State != "open" {
			t.Errorf("%s: %v, %+v", name, err, b.Stats())
		}
	}
}

// The single call of a half-open breaker gives the probe back however it ends, and only after it
// has ended.
func TestProbeIsGivenBackHoweverItsCallEnds(t *testing.T) {
	for name, end := range map[string]func(release chan struct{}) error{
		"succeeds":            func(chan struct{}) error { return nil },
		"fails":               func(chan struct{}) error { return errDown },
		"panics":              func(chan struct{}) error { panic("boom") },
		"ends its goroutine":  func(chan struct{}) error { runtime.Goexit(); return nil },
		"ignores its context": func(release chan struct{}) error { <-release; return nil },
		"is not made after all": func(
			chan struct{}) error {
			return resilience.NotMadeError{Why: "full"}
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { probed(t, end) }) })
	}
}

// probed opens a breaker, lets another replica probe first, and then makes the call that ends in a
// given way.
func probed(t *testing.T, end func(release chan struct{}) error) {
	release := make(chan struct{})
	defer close(release)
	asked, may := 0, false
	var left atomic.Int32 // a call that ignores its context reads it in its own goroutine
	b := &resilience.Breaker{Name: "provider", Failures: 1, Probe: func(context.Context) (func(),
		bool) {
		asked++
		return func() { left.Add(1) }, may
	}}
	guard := b.Guard()
	_ = guard(t.Context(), fail)
	if asked != 0 {
		t.Error("a closed breaker asked for the probe")
	}
	<-time.After(resilience.DefaultOpen + time.Millisecond)
	if _, refused := notMade(guard(t.Context(), succeed)); !refused || asked != 1 || left.Load() != 0 {
		t.Errorf("while another probes: refused %t, asked %d, left %d times", refused, asked, left.Load())
	}
	may = true
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	func() {
		defer func() { _ = recover() }()
		_ = guard(ctx, func(context.Context) error {
			if left.Load() != 0 {
				t.Error("the probe was given back before the call")
			}
			return end(release)
		})
	}()
	if asked != 2 || left.Load() != 1 {
		t.Errorf("asked %d times for the probe, gave it back %d times", asked, left.Load())
	}
}

// A call that panics releases its slot in the ramp.
func TestPanicInACallReleasesItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &resilience.Breaker{Name: "provider", Failures: 1}
		guard := b.Guard()
		_ = guard(t.Context(), fail)
		<-time.After(resilience.DefaultOpen + time.Millisecond)
		_ = guard(t.Context(), succeed) // closed, with a ramp
		for range 3 {
			func() {
				defer func() { _ = recover() }()
				_ = guard(t.Context(), func(context.Context) error { panic("boom") })
			}()
			<-time.After(resilience.DefaultOpen + time.Millisecond)
		}
		if err := guard(t.Context(), succeed); err != nil {
			t.Error(err)
		}
	})
}

// A call that arrives during the single call of a half-open breaker may be retried soon, and not
// only after another minute.
func TestCallDuringTheProbeWaitsBriefly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &resilience.Breaker{Name: "provider", Failures: 1}
		guard := b.Guard()
		_ = guard(t.Context(), fail)
		<-time.After(resilience.DefaultOpen + time.Millisecond)
		err := guard(t.Context(), func(context.Context) error {
			if after, ok := notMade(guard(t.Context(), succeed)); !ok || after > time.Second {
				t.Errorf("a second call: made %t, retry after %s", !ok, after)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// Only failures in a row open a breaker. A peer that fails sometimes and answers in between is not
// down.
func TestOnlyFailuresInARowOpen(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(context.Context) error{
		"a success": succeed,
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

// After a breaker has closed, only calls that succeed raise the number of concurrent calls.
func TestFailuresLetNoMoreCallsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &resilience.Breaker{Name: "provider"}
		guard := b.Guard()
		for range resilience.DefaultFailures {
			_ = guard(t.Context(), fail)
		}
		<-time.After(resilience.DefaultOpen + time.Millisecond)
		_ = guard(t.Context(), succeed) // the breaker closes, and allows two calls
		for range resilience.DefaultFailures - 1 {
			_ = guard(t.Context(), fail)
		}
		release := make(chan struct{})
		var made atomic.Int32
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				_ = guard(t.Context(), func(context.Context) error { made.Add(1); <-release; return nil })
			})
		}
		synctest.Wait()
		close(release)
		all.Wait()
		if made.Load() != 2 {
			t.Errorf("%d calls at a time, want 2", made.Load())
		}
	})
}

// The single call of a half-open breaker opens or closes it, even if it never returns or ends its
// goroutine.
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
			if err := guard(t.Context(), succeed); err != nil || b.Stats().State != "closed" {
				t.Errorf("%s, then a call that succeeds: %v, %+v", name, err, b.Stats())
			}
			close(release)
		})
	}
}
