// Package loyalty is a fifth service, made by a stranger: it grants points for every order that is
// confirmed, and says so. It uses the public packages only, and nothing else had to change for it.
package loyalty

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/events/fulfilment"
	"github.com/quadrille-go/quadrille/topology"
)

//go:embed migrations/*.sql
var migrations embed.FS

// perOrder is how many points an order brings.
const perOrder = 10

// PointsGranted is the stranger's own event.
type PointsGranted struct {
	OrderID string `json:"order_id"`
	Points  int64  `json:"points"`
}

// EventType is the routing key.
func (PointsGranted) EventType() string { return "points.granted" }

// Subject is the order.
func (p PointsGranted) Subject() string { return p.OrderID }

// New returns the service. It joins the choreography: it hears what orders says.
func New(database, amqp string, log zerolog.Logger) *quadrille.Service {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	s := &quadrille.Service{
		Name: "loyalty", Publishes: []events.Payload{PointsGranted{}},
		Database: database, AMQP: amqp, Topology: topology.Fulfilment(),
		Migrations: map[string]fs.FS{"loyalty": files}, Log: log,
	}
	s.Handlers = []consumer.Handler{consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[fulfilment.OrderConfirmed]) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO points (order_id, points) VALUES ($1, $2)`,
			e.Data.OrderID, perOrder); err != nil {
			return fmt.Errorf("grant points: %w", err)
		}
		return s.Publish(ctx, tx, PointsGranted{OrderID: e.Data.OrderID, Points: perOrder})
	})}
	return s
}
