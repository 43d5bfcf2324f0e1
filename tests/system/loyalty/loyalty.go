// Package loyalty is an example of a fifth service: it grants points for every confirmed order and
// publishes an event about them. It uses the public packages only, and no other service had to
// change for it.
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
	"github.com/quadrille-go/quadrille/fulfilment"
)

//go:embed migrations/*.sql
var migrations embed.FS

// perOrder is the number of points for an order.
const perOrder = 10

// PointsGranted is the event that the service publishes.
type PointsGranted struct {
	OrderID string `json:"order_id"`
	Points  int64  `json:"points"`
}

// EventType returns the type of the event, which is also its routing key.
func (PointsGranted) EventType() string { return "points.granted" }

// Subject returns the order id.
func (p PointsGranted) Subject() string { return p.OrderID }

// New returns the service. It joins the choreography of orders and handles what they publish.
func New(database, amqp string, log zerolog.Logger) (*quadrille.Service, error) {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	var s *quadrille.Service
	grant := func(ctx context.Context, tx *sqlx.Tx, e events.Of[fulfilment.OrderConfirmed]) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO points (order_id, points) VALUES ($1, $2)`,
			e.Data.OrderID, perOrder); err != nil {
			return fmt.Errorf("grant points: %w", err)
		}
		return s.Publish(ctx, tx, PointsGranted{OrderID: e.Data.OrderID, Points: perOrder})
	}
	var err error
	s, err = quadrille.New(quadrille.Config{
		Name: "loyalty", Publishes: []events.Payload{PointsGranted{}},
		Handlers: []consumer.Handler{consumer.Handle(grant)},
		Database: database, AMQP: amqp, Topology: fulfilment.Topology(),
		Migrations: map[string]fs.FS{"loyalty": files}, Log: log,
	})
	return s, err
}
