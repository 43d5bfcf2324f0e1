package consumer

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// Messages that are so large that the bound of bytes comes first make the prefetch smaller, for
// a while.
func TestPrefetchLearnsFromLargeMessages(t *testing.T) {
	t.Parallel()
	p := prefetch{full: Prefetch}
	p.adjust(errors.New("the line broke"))
	if p.now() != Prefetch {
		t.Errorf("%d without a reason", p.now())
	}
	for _, c := range []struct{ inHand, want int }{{64, 32}, {32, 16}, {1, 1}} {
		p.adjust(fmt.Errorf("%w: %w", rabbit.ErrClosed, rabbit.BytesInHandError{Messages: c.inHand}))
		if p.now() != c.want {
			t.Errorf("%d after %d were too many, want %d", p.now(), c.inHand, c.want)
		}
	}
	p.since = time.Now().Add(-smallPrefetchFor - time.Second)
	if p.now() != Prefetch {
		t.Errorf("%d after a while", p.now())
	}
}
