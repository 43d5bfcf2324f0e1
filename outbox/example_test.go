package outbox_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// A change and its event are committed in one transaction, and the relay publishes the event after
// the commit.
func Example() {
	ctx := context.Background()
	databaseURL, brokerURL := os.Getenv("DATABASE_URL"), os.Getenv("BROKER_URL")
	if err := pg.Migrate(ctx, databaseURL, "outbox", outbox.Migrations()); err != nil {
		fmt.Println(err)
		return
	}
	db, err := pg.Open(databaseURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	// In case this database is a restored copy, Fit comes before the first write.
	if err := outbox.Fit(ctx, db); err != nil {
		fmt.Println(err)
		return
	}
	out := outbox.New(db)
	relay := &outbox.Relay{Outbox: out, URL: brokerURL, Database: databaseURL, Name: "notes",
		Exchange: "notes.events", Log: zerolog.New(os.Stderr)}
	go relay.Run(ctx)

	taken := events.Cause(events.Event{}, "/notes", time.Now(), outboxtest.Note{On: "shopping", N: 1,
		Text: "milk"})
	err = out.Tx(ctx, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO notes VALUES ('shopping', 'milk')`); err != nil {
			return err
		}
		return out.Append(ctx, tx, taken)
	})
	if err != nil {
		fmt.Println(err)
	}
}
