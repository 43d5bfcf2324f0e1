// Command monolith is an application that publishes events and consumes none: an outbox is all that
// it takes to join other services. It issues an invoice for each customer on its command line. The
// row of the invoice and the event invoice.issued are one transaction, so that there is never one
// without the other, also when the broker is away or the process dies. The application keeps its
// own pool of connections. Events wait in the outbox until somebody has bound a queue for them.
//
//	createdb billing
//	export DATABASE_URL='postgres://me:secret@127.0.0.1:5432/billing?sslmode=disable'
//	export AMQP_URL='amqp://me:secret@127.0.0.1:5672/'
//	go run . ada bob # until Ctrl-C
package main

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// InvoiceIssued is the event that the application publishes.
type InvoiceIssued struct {
	Invoice  string `json:"invoice"`
	Customer string `json:"customer"`
	Amount   int64  `json:"amount"` // minor units
}

// EventType is the type of the event, which is also its routing key.
func (InvoiceIssued) EventType() string { return "invoice.issued" }

// Subject is the id of the invoice.
func (e InvoiceIssued) Subject() string { return e.Invoice }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Getenv("DATABASE_URL"), os.Getenv("AMQP_URL"), os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

// run issues the invoices and publishes their events until ctx is done.
func run(ctx context.Context, database, amqp string, customers []string) error {
	db, err := postgres.Open(database) // the pool of the application
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	billing, err := quadrille.New(quadrille.Config{
		Name:       "billing",
		Publishes:  []events.Payload{InvoiceIssued{}},
		Database:   database,
		DB:         db,
		AMQP:       amqp,
		Migrations: map[string]fs.FS{"billing": files},
		Mandatory:  func(string) bool { return true },
		Log:        zerolog.New(os.Stderr),
	})
	if err != nil {
		return err
	}
	defer func() { _ = billing.Close() }()
	for _, customer := range customers {
		if err := issue(ctx, billing, customer, 1900); err != nil {
			return err
		}
		fmt.Println("issued an invoice to", customer)
	}
	return billing.Run(ctx)
}

// issue stores an invoice and publishes its event, both or neither.
func issue(ctx context.Context, billing *quadrille.Service, customer string, amount int64) error {
	id := events.NewID() // outside, because the function may run again
	return billing.Tx(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO invoices (id, customer, amount)
			VALUES ($1, $2, $3)`, id, customer, amount); err != nil {
			return err
		}
		return billing.Publish(ctx, tx, InvoiceIssued{Invoice: id, Customer: customer, Amount: amount})
	})
}
