package consumer

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/postgres"
)

// The bounds of trying again.
const (
	// MaxAttempts is how often an event is tried before it is parked.
	MaxAttempts = 10
	// CallPatience is how long an outside call is made again in any case, however often it fails: a
	// peer may be away for longer than MaxAttempts last, and then it is not the event that is to
	// blame.
	CallPatience = 6 * time.Hour
	// MaxReruns is how often a transaction is run again at once because another one was first.
	MaxReruns = 10
	// DatabasePatience is how long an event waits without an attempt being spent while the database
	// is in the way, such as a table that somebody has locked. After that its attempts count.
	DatabasePatience = 24 * time.Hour
	retryFirst       = time.Second
	retryMax         = 5 * time.Minute
	rerunPause       = 20 * time.Millisecond
	outageFirst      = 100 * time.Millisecond // pause between probes of a database that is away
	outageMax        = 5 * time.Second
	backoffSteps     = 16 // doublings after which every pause has reached its maximum
)

// disposition is what becomes of a batch whose transaction failed.
type disposition int

const (
	rerun           disposition = iota // the same again at once
	waitForDatabase                    // wait until the database is back, then the same again
	split                              // one by one, so that only the poison suffers
	// wait without an attempt being spent: the events are not to blame
	postpone
	delay // the one event waits for its next attempt
	park  // the one event waits for a person
)

// dispose decides about a batch of size events whose transaction failed with err for the
// (reruns+1)th time. Alive is the answer of a probe of the database; attempts counts those of a
// single event before this one.
func dispose(err error, size, reruns, attempts int, alive bool) disposition {
	if !alive {
		return waitForDatabase
	}
	class := postgres.ClassOf(err)
	if errors.As(err, new(outsideError)) {
		class = postgres.Other // a connection that it lost was not the database's
	}
	switch {
	// it has waited long enough for the others in its lane
	case databaseFault(err) && class != postgres.Lost && class != postgres.Retry:
		return postpone
	case class == postgres.Retry && reruns < MaxReruns,
		// The database answers now: what was lost was this connection, or its transaction's outcome,
		// which the inbox settles.
		class == postgres.Lost && reruns < MaxReruns,
		class == postgres.Busy && reruns < 1:
		return rerun
	case databaseFault(err):
		return postpone
	case size > 1:
		return split
	case class == postgres.BadData, isPermanent(err), isRefusal(err),
		errors.Is(err, events.ErrMalformed),
		errors.Is(err, events.ErrUnknownMajor), errors.Is(err, events.ErrUnknownType),
		errors.Is(err, events.ErrTooLarge):
		return park
	}
	if _, waits := retryPause(err, 0); waits {
		return postpone
	}
	if attempts+1 >= MaxAttempts {
		return park
	}
	return delay
}

// databaseFault tells whether the database is to blame for an error and not the event.
func databaseFault(err error) bool {
	return postgres.DatabaseFault(err) && !errors.As(err, new(outsideError))
}

// patient tells whether an outside call that has failed so often is made again all the same.
func patient(err error, age time.Duration) bool {
	var outside outsideError
	return errors.As(err, &outside) && !isPermanent(err) && age < CallPatience
}

// wasMade tells whether an outside call that costs no attempt was made all the same, by the method
// Made. Past CallPatience it costs one: where there is nothing else to ask a peer, one call that it
// always fails would keep its breaker open for ever.
func wasMade(err error) bool {
	var m interface {
		error
		Made() bool
	}
	return errors.As(err, &m) && m.Made()
}

// pauseBefore returns the pause before the next attempt: exponential with full jitter, but never
// less than half, so that a retry is not immediate.
func pauseBefore(attempts int) time.Duration {
	return jitter(min(retryFirst<<min(attempts-1, backoffSteps), retryMax))
}

func outagePause(probes int) time.Duration {
	return jitter(min(outageFirst<<min(probes, backoffSteps), outageMax))
}

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
