package consumer

import (
	"errors"
	"time"

	"github.com/quadrille-go/quadrille/rabbit"
)

// smallPrefetchFor is how long sessions have a smaller prefetch after one that had too many bytes
// in hand.
const smallPrefetchFor = 10 * time.Minute

// prefetch is how many deliveries a session may have in hand. It learns from messages that are so
// large that MaxBytesInHand comes first: a session that stops to read would be ended by the broker.
// It is for one goroutine.
type prefetch struct {
	full  int // as it is set
	small int // 0: full
	since time.Time
}

// now returns the prefetch of the next session.
func (p *prefetch) now() int {
	if p.small == 0 || time.Since(p.since) > smallPrefetchFor {
		return p.full
	}
	return p.small
}

// adjust hears why a session has ended.
func (p *prefetch) adjust(err error) {
	if full, ok := errors.AsType[rabbit.BytesInHandError](err); ok {
		p.small, p.since = max(1, full.Messages/2), time.Now()
	}
}
