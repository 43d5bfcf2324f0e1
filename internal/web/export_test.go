package web

// Waiting is how many requests wait for a transaction.
func (g *Group[C]) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}
