package engine

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
	const full = 2000
	now := time.Now()
	p := prefetch{full: full}
	p.adjust(errors.New("the line broke"), now)
	if p.now(now) != full {
		t.Errorf("%d without a reason", p.now(now))
	}
	for _, c := range []struct{ inHand, want int }{{64, 32}, {32, 16}, {1, 1}} {
		p.adjust(fmt.Errorf("%w: %w", rabbit.ErrClosed, rabbit.BytesInHandError{Messages: c.inHand}), now)
		if p.now(now) != c.want {
			t.Errorf("%d after %d were too many, want %d", p.now(now), c.inHand, c.want)
		}
	}
	now = now.Add(smallPrefetchFor + time.Second)
	if p.now(now) != full {
		t.Errorf("%d after a while", p.now(now))
	}
}
