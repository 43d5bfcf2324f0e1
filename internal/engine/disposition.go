package engine

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// The bounds of trying again.
const (
	// MaxReruns is how often a transaction is run again at once because another one was first.
	MaxReruns     = 10
	rerunPause    = 20 * time.Millisecond
	databasePause = time.Second            // before the next attempt, when the database is to blame
	outageFirst   = 100 * time.Millisecond // pause between probes of a database that is away
	outageMax     = 5 * time.Second
	backoffSteps  = 16 // doublings after which every pause has reached its maximum
)

// Retry is the policy for what fails: how many attempts it has, and pauses that double from First
// to Longest.
type Retry struct {
	Attempts int
	First    time.Duration
	Longest  time.Duration
}

// Pause returns the pause before the next attempt: exponential with jitter, but never less than
// half, so that a retry is not immediate.
func (r Retry) Pause(attempts int) time.Duration {
	pause := min(r.First, MaxDuration)
	for n := 1; n < attempts && pause < r.Longest; n++ {
		pause *= 2 // cannot overflow below MaxDuration
	}
	return jitter(min(pause, max(r.First, r.Longest), MaxDuration))
}

// disposition is what is done with a batch whose transaction failed.
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
func (r Retry) dispose(err error, size, reruns, attempts int, alive bool) disposition {
	if !alive {
		return waitForDatabase
	}
	class := pg.ClassOf(err)
	if errors.As(err, new(outsideError)) {
		class = pg.Other // a connection that it lost was not the database's
	}
	switch {
	// it has waited long enough for the others in its lane
	case databaseFault(err) && class != pg.Lost && class != pg.Retry:
		return postpone
	case class == pg.Retry && reruns < MaxReruns,
		// The database answers now: only this connection was lost, or the outcome of its transaction,
		// which the inbox tells.
		class == pg.Lost && reruns < MaxReruns,
		class == pg.Busy && reruns < 1:
		return rerun
	case databaseFault(err):
		return postpone
	case size > 1:
		return split
	case class == pg.BadData, isPermanent(err), isRefusal(err),
		errors.Is(err, events.ErrMalformed),
		errors.Is(err, events.ErrUnknownMajor), errors.Is(err, events.ErrUnknownType),
		errors.Is(err, events.ErrTooLarge):
		return park
	}
	if _, waits := retryPause(err, 0, MaxDuration); waits {
		return postpone
	}
	if attempts+1 >= r.Attempts {
		return park
	}
	return delay
}

// again is the next attempt of what waited and has failed again.
type again struct {
	after         time.Duration
	spent, parked bool // whether this attempt counts, and whether it was the last one
}

// again decides about something that has waited for age and failed after a number of attempts.
func (r Retry) again(failed error, attempts int, age time.Duration, b Bounds) again {
	patient := patient(failed, age, b.CallPatience)
	if after, waits := retryPause(failed, age, b.DatabasePatience); waits &&
		(patient || !wasMade(failed)) {
		return again{after: after}
	}
	last := attempts+1 >= r.Attempts ||
		r.dispose(failed, 1, MaxReruns, attempts, true) == park
	return again{after: r.Pause(attempts + 1), spent: true, parked: last && !patient}
}

// databaseFault reports whether the database is the cause of an error, and not the event.
func databaseFault(err error) bool {
	return pg.DatabaseFault(err) && !errors.As(err, new(outsideError))
}

// patient reports whether an outside call is repeated although it has used all its attempts.
func patient(err error, age, patience time.Duration) bool {
	var outside outsideError
	return errors.As(err, &outside) && !isPermanent(err) && age < patience
}

// wasMade reports, by the method Made, whether a call that uses no attempt reached the peer. After
// CallPatience such a call uses one: if it is the only call to that peer and always fails, it would
// otherwise keep the breaker open without end.
func wasMade(err error) bool {
	var m interface {
		error
		Made() bool
	}
	return errors.As(err, &m) && m.Made()
}

func outagePause(probes int) time.Duration {
	return jitter(min(outageFirst<<min(probes, backoffSteps), outageMax))
}

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
