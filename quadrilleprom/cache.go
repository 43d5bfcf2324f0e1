package quadrilleprom

import (
	"context"
	"sync"
	"time"

	"github.com/quadrille-go/quadrille"
)

// The bounds of reading what waits in the database.
const (
	cacheFor    = 5 * time.Second // then it is read again
	readTimeout = 2 * time.Second
)

// cache keeps what waits in the database, or that it could not be read, for some seconds: several
// systems may scrape a service. It is safe for concurrent use.
type cache struct {
	read func(context.Context) (quadrille.Backlog, error)

	mu      sync.Mutex
	backlog quadrille.Backlog
	ok      bool // the last read has succeeded
	at      time.Time
	reading chan struct{} // closed at the end of the read that is under way; nil: there is none
}

// get returns the backlog, or false if the database has not answered in time. The driver waits on a
// silent connection whatever its context says, so the read has a goroutine of its own, of which
// there is one at a time.
func (c *cache) get() (quadrille.Backlog, bool) {
	c.mu.Lock()
	if c.reading == nil && (c.at.IsZero() || time.Since(c.at) > cacheFor) {
		c.reading = make(chan struct{})
		go c.refresh(c.reading) // ends with the read
	}
	reading := c.reading
	c.mu.Unlock()
	if reading != nil {
		timer := time.NewTimer(readTimeout)
		defer timer.Stop()
		select {
		case <-reading:
		case <-timer.C:
			return quadrille.Backlog{}, false
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.backlog, c.ok
}

func (c *cache) refresh(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	backlog, err := c.read(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.backlog, c.ok, c.at, c.reading = backlog, err == nil, time.Now(), nil
	close(done)
}
