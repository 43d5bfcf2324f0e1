package consumer_test

import (
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/topology"
)

// A queue that is deleted and declared again at once may keep the consumer of the old one, and drop
// all that is delivered to it. The session is idle then, so another one replaces it.
func TestConsumerOfARecreatedQueueGoesOn(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	c := w.Consumer(consumertest.Service, nil, note("bank"))
	c.RenewIdle = 2 * time.Second
	stop := w.Start(c)
	for n := 1; n <= 3; n++ {
		w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o"})
		w.Becomes(n, notesCount)
		w.Recreate(topology.QueueOf(consumertest.Service))
	}
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o"})
	w.Becomes(4, notesCount)
	stop()
	w.Drained()
}
