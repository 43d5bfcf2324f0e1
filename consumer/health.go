package consumer

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

// health is what is known of a consumer's sessions.
type health struct {
	mu    sync.Mutex
	since time.Time // when the session that consumes began; zero: there is none
	last  error     // why the last one ended, or did not begin
	short int       // sessions in a row that did not last
	ends  map[string]int64
}

func (h *health) began() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since = time.Now()
}

func (h *health) ended(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() || time.Since(h.since) < settledAfter {
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
func (h *health) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.since.IsZero() && h.last == nil:
		return errNoSession
	case h.since.IsZero():
		return fmt.Errorf("nothing is consumed: %w", h.last)
	case h.short >= maxShort && time.Since(h.since) < settledAfter:
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

// Healthy returns nil while the consumer handles deliveries, and otherwise the reason: it has no
// session with the broker, its sessions break, or handlers hang. It is safe for concurrent use.
func (c *Consumer) Healthy() error {
	c.prepare()
	var sessions error // of a service without a queue there are none
	if c.consumes() {
		sessions = c.sessions.health.err()
	}
	return errors.Join(sessions, c.work.hanging.err())
}

// SessionEnds counts the sessions that ended, or did not begin, by their cause; see rabbit.CauseOf.
func (c *Consumer) SessionEnds() map[string]int64 {
	c.prepare()
	return c.sessions.health.counts()
}

// consumes reports whether the service has a queue.
func (c *Consumer) consumes() bool {
	me, _ := c.Topology.Service(c.Name)
	return len(me.Reacts) > 0
}
