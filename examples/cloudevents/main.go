// Command cloudevents consumes the events of a system that is not written with this kit: erp, which
// publishes the prices of articles as CloudEvents in binary mode. The program keeps the latest
// price of each article in a table of its own. The topology has erp as one more service, so that
// the events of its exchange are accepted; the program declares its own queue and binds it to that
// exchange.
//
// What the other system must keep to:
//
//   - it publishes on a durable topic exchange, erp.events, which only it may write;
//   - the routing key is the type of the event, and the body is JSON;
//   - each message has the headers ce-id, a UUID, ce-type, ce-time and, if any, ce-subject;
//   - ce-time is not older than Bounds.ReceiptHistory, 60 days, else the event is parked: it may
//     have been handled before;
//   - ce-source is /erp, or absent, because the exchange tells who has published the event.
//
// Run it with:
//
//	createdb prices
//	export DATABASE_URL='postgres://me:secret@127.0.0.1:5432/prices?sslmode=disable'
//	export AMQP_URL='amqp://me:secret@127.0.0.1:5672/'
//	go run . # until Ctrl-C
package main

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"log"
	"os"
	"os/signal"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

//go:embed migrations/*.sql
var migrations embed.FS

// PriceChanged is an event of the other system. The struct has only the fields that this program
// needs; other fields of the JSON are ignored.
type PriceChanged struct {
	Article string `json:"article"`
	Price   int64  `json:"price"` // minor units
}

// EventType is the type that the other system sets in ce-type.
func (PriceChanged) EventType() string { return "price.changed" }

// Subject is the article. If the message has a ce-subject, it must be the same.
func (e PriceChanged) Subject() string { return e.Article }

// Validate refuses an event that cannot be used. It is parked, and other events go on.
func (e PriceChanged) Validate() error {
	if e.Article == "" || e.Price < 0 {
		return errors.New("a price needs an article and must not be negative")
	}
	return nil
}

// others is what the other system publishes. This program is not part of the topology, so that
// it declares its own queue.
func others() topology.Topology {
	return topology.Topology{Name: "prices", Services: []topology.Service{{Name: "erp",
		Commands: []topology.Command{{Does: "change a price", Publishes: []string{"price.changed"}}}}}}
}

// keep stores the price unless a newer one is known, since events arrive in any order.
func keep(ctx context.Context, tx *sqlx.Tx, e events.Of[PriceChanged]) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO prices AS known (article, price, changed_at, changes)
		VALUES ($1, $2, $3, 1)
		ON CONFLICT (article) DO UPDATE SET changes = known.changes + 1,
			price = CASE WHEN excluded.changed_at > known.changed_at THEN excluded.price
				ELSE known.price END,
			changed_at = greatest(known.changed_at, excluded.changed_at)`,
		e.Data.Article, e.Data.Price, e.Time)
	return err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		log.Fatal(err)
	}
	prices, err := quadrille.New(quadrille.Config{
		Name:       "prices",
		Topology:   others(),
		Handlers:   []consumer.Handler{consumer.Handle(keep)},
		Database:   os.Getenv("DATABASE_URL"),
		AMQP:       os.Getenv("AMQP_URL"),
		Migrations: map[string]fs.FS{"prices": files},
		Log:        zerolog.New(os.Stderr),
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := prices.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
