package eventstore_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// Reactions read the state of an aggregate and change it by recording facts. With a memory they run
// without a database.
func ExampleStreams() {
	m := consumer.Memory{}
	for _, n := range []int{400, 500, 300} { // the last one would exceed a thousand
		if _, _, err := participant.ApplyTo(m, events.Command(plus{"visitors", n},
			time.Now())); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Print(m)
	// Output: counter visitors {"name":"visitors","sum":900}
}

// Code without a participant reads a stream, decides, and appends after the head that it has read.
// It repeats this if another transaction was first.
func ExampleAppend() {
	ctx := context.Background()
	databaseURL := os.Getenv("DATABASE_URL")
	if err := pg.Migrate(ctx, databaseURL, "eventstore", eventstore.Migrations()); err != nil {
		fmt.Println(err)
		return
	}
	db, err := pg.Open(databaseURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	const stream = "counter/visitors"
	for {
		found, err := eventstore.Fold[counter](ctx, db, stream)
		if err != nil {
			fmt.Println(err)
			return
		}
		visitor := events.Cause(events.Event{}, "/door", time.Now(), added{"visitors", 1})
		err = pg.InTx(ctx, db, func(tx *sqlx.Tx) error {
			_, err := eventstore.Append(ctx, tx, stream, found[stream].Head, visitor)
			return err
		})
		if pg.ClassOf(err) != pg.Retry { // a *Conflict has that class
			fmt.Println(err)
			return
		}
	}
}

// A projection is a table for reading, filled by two pure functions.
func ExampleProject() {
	type row struct {
		Name string `db:"name"`
		Sum  int    `db:"sum"`
	}
	sums := eventstore.Project(eventstore.Projection{
		Name: "sums", Key: "name", Version: 1, Facts: counter{}.Facts(),
		Columns: `name text PRIMARY KEY, sum bigint NOT NULL`,
	}, func(d eventstore.Decoded) []string {
		return []string{d.Data.Subject()}
	}, func(rows *consumer.Rows[string, row], d eventstore.Decoded) {
		r, _ := rows.Get(d.Data.Subject())
		rows.Set(d.Data.Subject(), row{d.Data.Subject(), r.Sum + d.Data.(added).N})
	})
	fmt.Println(sums.Name) // quadrille.Service{Projections: …} fills it
	// Output: sums
}
