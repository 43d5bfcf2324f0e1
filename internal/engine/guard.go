package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/logfields"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// The bounds of what an author's code may take.
const (
	// handlerGrace is what code that ends with its context is given to end.
	handlerGrace = 2 * time.Second
	// MaxHanging is how many runs of the handler of one type may not have returned. A goroutine cannot
	// be ended from outside; above this bound the handler is not run, and its events fail at once.
	MaxHanging = 4
)

// errExited is the error of a handler that has ended its goroutine, with runtime.Goexit or by the
// methods of a test.
var errExited = errors.New("the handler ended its goroutine (runtime.Goexit)")

// hungError is the error of a handler that has not returned although its context has ended. Its
// goroutine may continue, but its transaction is rolled back and nothing that it writes has an
// effect.
type hungError struct {
	key, eventType string
	after          time.Duration
}

func (h hungError) Error() string {
	return fmt.Sprintf("the handler of %s has not returned within %s and ignores its context",
		h.eventType, h.after)
}

// guard runs code of an author, or code that calls it, in a goroutine of its own, so that it can
// neither take the caller with it nor hold it up: a panic, the end of the goroutine and a hang are
// errors. The variables that f sets must be read only if there is no error, or if they were set
// before the author's code began.
func guard[T any](ctx context.Context, hang *hanging, timeout time.Duration,
	f func(ctx context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	w := &watch{}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, watchKey{}, w), timeout)
	done := make(chan result, 1)
	go func() { // ends with f
		r := result{err: errExited}
		defer func() {
			if cause := recover(); cause != nil {
				r.err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
			}
			cancel()
			done <- r
		}()
		r.value, r.err = f(ctx)
	}()
	timer := time.NewTimer(timeout + handlerGrace)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-timer.C:
	}
	var none T
	running := w.running.Load()
	if running == nil { // the driver waits on a silent connection and ignores its context
		return none, fmt.Errorf("the database has not answered within %s: %w", timeout,
			pg.ErrUnknownOutcome)
	}
	hung := hungError{running.key, running.eventType, timeout}
	hang.add(hung.eventType, 1)
	about := logfields.Of{ID: hung.key, Type: hung.eventType}
	if running.event.Data != nil {
		about = aboutEvent(running.event)
	}
	hang.log.Error().EmbedObject(about).Msg(hung.Error())
	go func() { // ends with f
		<-done
		hang.add(hung.eventType, -1)
	}()
	return none, hung
}

// watch records for which event an author's code runs.
type watch struct{ running atomic.Pointer[run] }

type run struct {
	key, eventType string
	event          events.Event // without Data: it is not decoded yet
}

type watchKey struct{}

// watched notes that an author's code begins to work on what waits under a key, and returns what
// notes its end.
func watched(ctx context.Context, key, eventType string) (ended func()) {
	w, _ := ctx.Value(watchKey{}).(*watch)
	if w == nil {
		return func() {}
	}
	w.running.Store(&run{key: key, eventType: eventType})
	return func() { w.running.Store(nil) }
}

// Safely runs the handler of one event: a panic is an error.
func Safely(ctx context.Context, e events.Event, f func() error) (err error) {
	if w, _ := ctx.Value(watchKey{}).(*watch); w != nil {
		w.running.Store(&run{keyOf(e), e.Data.EventType(), e})
		defer w.running.Store(nil)
	}
	defer recovered(&err, e)
	return evaluated(f())
}

// Misuse is an error with which code panics whose text says all that its author needs: no stack is
// added.
type Misuse interface {
	error
	Misuse()
}

// recovered turns a panic into an error with its stack.
func recovered(err *error, e events.Event) {
	switch cause := recover().(type) {
	case nil:
	case Misuse:
		*err = fmt.Errorf("react to %s: %w", e.Data.EventType(), cause)
	default:
		*err = fmt.Errorf("react to %s: panic: %v\n%s", e.Data.EventType(), cause, debug.Stack())
	}
}

// evaluatedError is an error of an author's code with its text, so that the code does not run again
// to return it.
type evaluatedError struct {
	error
	text string
}

func (a evaluatedError) Error() string { return a.text }

func (a evaluatedError) Unwrap() error { return a.error }

// evaluated calls all methods of an author's error that are called later. Here a method that
// panics, such as that of a nil pointer, or hangs is still the failure of one event.
func evaluated(err error) error {
	if err == nil {
		return nil
	}
	a := evaluatedError{err, err.Error()}
	_ = Retry{}.dispose(a, 1, 0, 0, true)
	_, _ = retryPause(a, 0, 0)
	_ = wasMade(a)
	return a
}

// keyOf is the key under which an event or a deadline waits in pending.
func keyOf(e events.Event) string {
	if e.ID != "" {
		return e.ID
	}
	return inbox.DeadlineKey(e.Data.EventType(), e.Data.Subject())
}

// hanging counts the runs of handlers that have not returned, by type.
type hanging struct {
	log  zerolog.Logger
	mu   sync.Mutex
	runs map[string]int
}

func (h *hanging) add(eventType string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs == nil {
		h.runs = map[string]int{}
	}
	if h.runs[eventType] += n; h.runs[eventType] == 0 {
		delete(h.runs, eventType)
	}
}

// now returns how many runs there are.
func (h *hanging) now() (n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, runs := range h.runs {
		n += int64(runs)
	}
	return n
}

// check returns an error for a type whose handler must not be run.
func (h *hanging) check(eventType string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs[eventType] < MaxHanging {
		return nil
	}
	return fmt.Errorf("the handler of %s is not run: %d earlier runs of it have not returned",
		eventType, h.runs[eventType])
}

// err names the types whose handlers hang. It returns nil if there are none.
func (h *hanging) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.runs) == 0 {
		return nil
	}
	return fmt.Errorf("handlers that have not returned: %q", slices.Sorted(maps.Keys(h.runs)))
}
