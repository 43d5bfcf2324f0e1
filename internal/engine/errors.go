package engine

import (
	"errors"
	"math/rand/v2"
	"time"
)

// ErrRefused is what the refusal of a command is, for errors.Is. A refusal leaves the transaction
// that a command has joined intact, since the command has written nothing.
var ErrRefused = errors.New("refused")

func isRefusal(err error) bool { return errors.Is(err, ErrRefused) }

// permanent marks an error that no retry repairs.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Permanent returns err marked so that the event is parked at once.
func Permanent(err error) error { return permanent{err} }

func isPermanent(err error) bool { return errors.As(err, new(permanent)) }

// retryAfter is an error that costs no attempt.
type retryAfter struct {
	error
	after time.Duration
}

func (n retryAfter) Unwrap() error { return n.error }

func (n retryAfter) RetryAfter() time.Duration { return n.after }

// RetryAfter returns err marked so that the next attempt is after a pause, and this one does not
// count. Errors of other packages may have the method as well.
func RetryAfter(err error, after time.Duration) error { return retryAfter{err, after} }

// maxExtraWait bounds what is added to the pause of RetryAfter.
const maxExtraWait = time.Minute

// retryPause returns the pause of RetryAfter, or of an error that is not the event's, or a tenth of
// how long it has waited already, up to a minute: many that wait for one peer, or one limit, must
// not all come back at each moment.
func retryPause(err error, age, patience time.Duration) (after time.Duration, waits bool) {
	var n interface {
		error
		RetryAfter() time.Duration
	}
	switch {
	case errors.As(err, &n):
		after = n.RetryAfter()
	case databaseFault(err) && age < patience:
		after = databasePause
	default:
		return 0, false
	}
	after = min(max(0, after, min(age/10, maxExtraWait)), MaxDuration)
	return after + rand.N(after/2+1), true
}

// outsideError is what an outside call returned.
type outsideError struct{ error }

func (o outsideError) Unwrap() error { return o.error }
