package rabbit

import (
	"fmt"
	"sync"
	"time"
)

// gateTimeout is how long the gate may be closed before the session ends. RabbitMQ itself closes
// a connection whose client reads nothing for 30 seconds.
const gateTimeout = 10 * time.Second

// smallHeader is the size up to which content headers are not counted. Most are smaller.
const smallHeader = 1 << 10

// BytesInHandError means that a session ended because its unacknowledged deliveries, which had
// reached the bound on bytes, were not acknowledged in time. The next session should have a smaller
// prefetch.
type BytesInHandError struct {
	Messages int
	Bytes    int64
}

func (e BytesInHandError) Error() string {
	return fmt.Sprintf(
		"unacknowledged deliveries stayed at the bound on bytes for %s (%d deliveries, "+
			"%d bytes): the next session has a smaller prefetch", gateTimeout, e.Messages, e.Bytes)
}

// gate bounds the bytes of the unacknowledged deliveries. While they reach the bound, the gate is
// closed: no further delivery is read from the connection, and TCP makes the broker wait.
type gate struct {
	timeout time.Duration // gateTimeout, or that of a test

	mu        sync.Mutex
	changed   *sync.Cond
	bound     int64 // 0: no bound
	onTimeout func(BytesInHandError)
	bytes     int64
	messages  int
	tag       uint64           // of the delivery whose frames are being read
	headers   map[uint64]int64 // by delivery tag, the sizes of headers that are not small
}

func newGate() *gate {
	g := &gate{timeout: gateTimeout, headers: map[uint64]int64{}}
	g.changed = sync.NewCond(&g.mu)
	return g
}

// setBound sets the bound, and the function that is called if the gate is closed for too long. At
// the end of a session a bound of 0 opens the gate, so that the close handshake can be read.
func (g *gate) setBound(bound int64, onTimeout func(BytesInHandError)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bound, g.onTimeout = bound, onTimeout
	g.changed.Broadcast()
}

// add counts n bytes of a body. It never waits, since a delivery that has begun is read completely.
func (g *gate) add(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes += n
}

// header counts n bytes of a content header, unless it is small.
func (g *gate) header(n int64) {
	if n <= smallHeader {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tag > 0 { // a message that was returned to a publisher has no tag
		g.bytes += n
		g.headers[g.tag] += n
	}
}

// release subtracts an acknowledged delivery with a body of n bytes.
func (g *gate) release(tag uint64, n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes -= n + g.headers[tag]
	g.messages--
	delete(g.headers, tag)
	g.changed.Broadcast()
}

func (g *gate) closed() bool { return g.bound > 0 && g.bytes >= g.bound }

// wait blocks until the delivery with the given tag may be read, and reports whether it blocked.
func (g *gate) wait(tag uint64) (waited bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed() {
		timer := time.AfterFunc(g.timeout, g.expire)
		defer timer.Stop()
	}
	for g.closed() {
		waited = true
		g.changed.Wait()
	}
	g.messages++
	g.tag = tag
	return waited
}

// expire calls onTimeout, unless the gate has opened in the meantime.
func (g *gate) expire() {
	g.mu.Lock()
	onTimeout, why := g.onTimeout, BytesInHandError{g.messages, g.bytes}
	if !g.closed() {
		onTimeout = nil
	}
	g.mu.Unlock()
	if onTimeout != nil {
		onTimeout(why)
	}
}
