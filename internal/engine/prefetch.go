package engine

import (
	"errors"
	"time"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// smallPrefetchFor is how long sessions have a smaller prefetch after one whose unacknowledged
// deliveries had too many bytes.
const smallPrefetchFor = 10 * time.Minute

// prefetch is the maximum number of unacknowledged deliveries of a session. It is reduced when
// large messages reach Bounds.PrefetchBytes first: the broker would end a session that stops
// reading. It is for one goroutine.
type prefetch struct {
	full  int // as it is set
	small int // 0: full
	since time.Time
}

// now returns the prefetch of the next session.
func (p *prefetch) now(at time.Time) int {
	if p.small == 0 || at.Sub(p.since) > smallPrefetchFor {
		return p.full
	}
	return p.small
}

// adjust takes the error with which a session has ended.
func (p *prefetch) adjust(err error, at time.Time) {
	if full, ok := errors.AsType[rabbit.BytesInHandError](err); ok {
		p.small, p.since = max(1, full.Messages/2), at
	}
}
