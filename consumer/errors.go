package consumer

import (
	"fmt"
	"time"

	"github.com/quadrille-go/quadrille/internal/engine"
)

// Refusal is the error of a reaction that refuses a command for a reason of the business. The
// caller of the command gets it, the transaction is rolled back, and it is not tried again. An
// event of another service is not refused: a refusal of one is parked.
type Refusal struct {
	Code   string // for programs, such as NotFound
	Detail string // for people
}

// The codes of refusals that most commands have. A service may have codes of its own.
const (
	NotFound = "not_found" // what the command is about does not exist
	Conflict = "conflict"  // it is in a state in which the command makes no sense
	Invalid  = "invalid"   // the command itself can never be executed
)

func (r *Refusal) Error() string { return r.Detail }

// Refuse returns a refusal with a code and a text, formatted as by fmt.Sprintf.
func Refuse(code, format string, args ...any) error {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Is reports whether target stands for any refusal.
func (r *Refusal) Is(target error) bool { return target == engine.ErrRefused }

// Permanent returns err marked so that the event is parked at once. A business refusal is not an
// error but an event.
func Permanent(err error) error { return engine.Permanent(err) }

// RetryAfter returns err marked so that an outside call is made again after a pause, jittered, and
// that this costs no attempt: the call was not made, or nothing but the peer is to blame. An error
// that has the method RetryAfter() time.Duration, such as those of package resilience when a
// breaker is open or a limit is reached, need not be marked. In a handler or a reaction it means
// the same: the event waits and no attempt is spent, as long as such errors go on.
func RetryAfter(err error, after time.Duration) error { return engine.RetryAfter(err, after) }
