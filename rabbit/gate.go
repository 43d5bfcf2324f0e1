package rabbit

import "sync"

// gate bounds the bytes of the deliveries that are in hand and unacknowledged. While they exceed
// the bound no further delivery is read from the connection, and TCP makes the broker wait.
type gate struct {
	mu     sync.Mutex
	opened *sync.Cond
	bound  int64 // 0: there is none
	inHand int64
}

func newGate() *gate {
	g := &gate{}
	g.opened = sync.NewCond(&g.mu)
	return g
}

// limit sets the bound; 0 lifts it, for a session that ends must be read to its end.
func (g *gate) limit(bound int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bound = bound
	g.opened.Broadcast()
}

// take counts what was read. It never waits: a delivery that has begun is read to its end.
func (g *gate) take(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inHand += n
}

// release counts what was acknowledged.
func (g *gate) release(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inHand -= n
	g.opened.Broadcast()
}

// wait returns when a further delivery may be read, and tells whether that took time.
func (g *gate) wait() (waited bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.bound > 0 && g.inHand >= g.bound {
		waited = true
		g.opened.Wait()
	}
	return waited
}
