package consumer

import (
	"context"
	"time"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// identityTimeout is how long the beginning of a session waits for the identity of the database.
const identityTimeout = 5 * time.Second

// subscribe opens a session on one of the service's queues.
func (c *Consumer) subscribe(ctx context.Context, name, queue string,
	prefetch int) (*rabbit.Deliveries, error) {
	session, err := rabbit.Open(ctx, c.URL, c.Name+"/"+name)
	if err != nil {
		return nil, err
	}
	if c.Ready != nil {
		err = c.Ready(session)
	}
	var deliveries *rabbit.Deliveries
	if err == nil {
		deliveries, err = rabbit.Subscribe(session, queue, c.database(ctx), prefetch,
			c.bounds.PrefetchBytes)
	}
	if err != nil {
		session.Close()
		return nil, err
	}
	return deliveries, nil
}

// database returns the identity of the database, for the broker's list of consumers. Each session
// reads it, since a database may be restored while replicas run. If the database does not answer,
// the last identity is used, so that the session begins nevertheless.
func (c *Consumer) database(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	if identity, err := pg.Identity(ctx, c.DB); err == nil {
		c.identity.Store(&identity)
		return identity
	}
	if known := c.identity.Load(); known != nil {
		return *known
	}
	return ""
}

// consumeDead parks what the broker gave up to deliver. It is evidence only: the event may have
// taken effect, so nothing goes back from there.
func (c *Consumer) consumeDead(ctx context.Context, prefetch int) error {
	deliveries, err := c.subscribe(ctx, "dead", topology.DeadQueueOf(c.Name), prefetch)
	if err != nil {
		return err
	}
	defer deliveries.Close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case d, ok := <-deliveries.C():
			if !ok {
				return over(deliveries)
			}
			record, why := c.decoder.dead(d)
			d.Exchange, d.RoutingKey = "dead", record.Type
			if !c.keeper.park(ctx, d, record, why) {
				return ctx.Err()
			}
			if err := deliveries.Ack(d); err != nil {
				return err
			}
		}
	}
}
