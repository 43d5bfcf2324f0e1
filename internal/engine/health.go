package engine

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// The bounds that distinguish a session that works from one that does not.
const (
	// settledAfter is how long a session must last to count as one that works.
	settledAfter = 10 * time.Second
	// maxShort is how many sessions in a row may end sooner before the consumer counts as unhealthy.
	maxShort = 3
)

// errNoSession is the error until the first session with the broker consumes.
var errNoSession = errors.New("no session with the broker has begun")

// health is what is known of a consumer's sessions. It is safe for concurrent use.
type health struct {
	mu    sync.Mutex
	since time.Time // when the session that consumes began; zero: there is none
	last  error     // why the last one ended, or did not begin
	short int       // sessions in a row that did not last
	ends  map[string]int64
}

func (h *health) began(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since = now
}

func (h *health) ended(err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() || now.Sub(h.since) < settledAfter {
		h.short++
	} else {
		h.short = 1
	}
	h.since, h.last = time.Time{}, err
	if h.ends == nil {
		h.ends = map[string]int64{}
	}
	h.ends[rabbit.CauseOf(err)]++
}

// err returns why nothing is consumed, or why sessions do not last.
func (h *health) err(now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.since.IsZero() && h.last == nil:
		return errNoSession
	case h.since.IsZero():
		return fmt.Errorf("nothing is consumed: %w", h.last)
	case h.short >= maxShort && now.Sub(h.since) < settledAfter:
		return fmt.Errorf("the last %d sessions with the broker ended within %s: %w", h.short,
			settledAfter, h.last)
	}
	return nil
}

// counts returns how many sessions have ended, by cause.
func (h *health) counts() map[string]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.ends)
}
