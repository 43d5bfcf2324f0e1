package quadrille

import (
	"context"
	"fmt"
	"time"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// The bounds of how long a broker may refuse a service that has just started.
const (
	// refusedPatience is how long the broker may refuse the user or the virtual host: while it starts,
	// or while an operator makes them, it does so for a moment.
	refusedPatience = 10 * time.Second
	refusedInterval = 500 * time.Millisecond
)

// refused returns an error when the broker refuses the service's user or virtual host from the
// start, or its certificate cannot be verified, for refusedPatience: waiting does not correct a
// wrong password or authority. It returns nil with the
// first session, and when ctx is done. It keeps waiting for a broker that cannot be reached, or
// that refuses later.
func (s *Service) refused(ctx context.Context) error {
	var since time.Time
	tick := time.NewTicker(refusedInterval)
	defer tick.Stop()
	for ctx.Err() == nil && !s.Connected() {
		session, err := rabbit.Open(ctx, s.config.AMQP, s.config.Name+"/check")
		switch {
		case err == nil:
			session.Close()
			return nil
		case !rabbit.NoAccess(err) && !rabbit.NoTrust(err):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > refusedPatience && rabbit.NoTrust(err):
			return fmt.Errorf("%w: AMQP: no TLS with the broker for %s: check AMQPTLS or cacertfile, "+
				"certfile and keyfile in the address, and the broker's certificate: %w",
				ErrMisconfigured, refusedPatience, err)
		case time.Since(since) > refusedPatience:
			return fmt.Errorf("%w: AMQP: the broker refuses the user or the virtual host for %s: %w",
				ErrMisconfigured, refusedPatience, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}
