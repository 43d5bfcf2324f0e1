package rabbit

import (
	"fmt"
	"sync"
	"time"
)

// gatePatience is how long the gate may be shut before the session ends. RabbitMQ ends a connection
// itself when its client reads nothing for 30 seconds.
const gatePatience = 10 * time.Second

// smallHeader is the size up to which content headers are not counted, since most are smaller.
const smallHeader = 1 << 10

// BytesInHandError says that a session has ended because so many deliveries, of so many bytes, were
// unacknowledged for too long. The next session should have a smaller prefetch.
type BytesInHandError struct {
	Messages int
	Bytes    int64
}

func (e BytesInHandError) Error() string {
	return fmt.Sprintf("%d messages of %d bytes were in hand for %s, which is as many bytes as may "+
		"be: a smaller prefetch follows", e.Messages, e.Bytes, gatePatience)
}

// gate bounds the bytes of the deliveries that are in hand and unacknowledged. While they exceed
// the bound no further delivery is read from the connection, and TCP makes the broker wait.
type gate struct {
	patience time.Duration // gatePatience, or what a test makes of it

	mu       sync.Mutex
	opened   *sync.Cond
	bound    int64 // 0: there is none
	stuck    func(BytesInHandError)
	inHand   int64
	messages int
	tag      uint64           // of the delivery whose frames are read
	headers  map[uint64]int64 // by delivery tag, the sizes of headers that are not small
}

func newGate() *gate {
	g := &gate{patience: gatePatience, headers: map[uint64]int64{}}
	g.opened = sync.NewCond(&g.mu)
	return g
}

// limit sets the bound, and what is called when the gate has been shut for too long. 0 lifts it,
// for a session that ends must be read to its end.
func (g *gate) limit(bound int64, stuck func(BytesInHandError)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bound, g.stuck = bound, stuck
	g.opened.Broadcast()
}

// take counts bytes of a body that was read. It never waits: a delivery that has begun is read to
// its end.
func (g *gate) take(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inHand += n
}

// header counts the content header of the delivery that is read, unless it is small.
func (g *gate) header(n int64) {
	if n <= smallHeader {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tag > 0 { // not of a message that was returned to a publisher
		g.inHand += n
		g.headers[g.tag] += n
	}
}

// release counts a delivery that was acknowledged, with a body of n bytes.
func (g *gate) release(tag uint64, n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inHand -= n + g.headers[tag]
	g.messages--
	delete(g.headers, tag)
	g.opened.Broadcast()
}

func (g *gate) shut() bool { return g.bound > 0 && g.inHand >= g.bound }

// wait returns when the delivery with a tag may be read, and tells whether that took time.
func (g *gate) wait(tag uint64) (waited bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut() {
		timer := time.AfterFunc(g.patience, g.cancel)
		defer timer.Stop()
	}
	for g.shut() {
		waited = true
		g.opened.Wait()
	}
	g.messages++
	g.tag = tag
	return waited
}

// cancel tells that the gate has been shut for too long.
func (g *gate) cancel() {
	g.mu.Lock()
	stuck, why := g.stuck, BytesInHandError{g.messages, g.inHand}
	if !g.shut() {
		stuck = nil
	}
	g.mu.Unlock()
	if stuck != nil {
		stuck(why)
	}
}
