package web

// Waiting returns the number of requests that wait for a transaction.
func (g *Group[C]) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}
