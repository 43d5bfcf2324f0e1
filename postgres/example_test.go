package postgres_test

import (
	"context"
	"fmt"
	"os"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/postgres"
)

// A leader does work that only one of the replicas may do. Its token protects what it writes.
func ExampleLeader() {
	ctx := context.Background()
	db, err := postgres.Open(os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	leader := postgres.Leader{DB: db, Name: "nightly report"}
	leader.Run(ctx, func(ctx context.Context, lead postgres.Lead) error {
		return lead.Tx(ctx, func(tx *sqlx.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO reports (day) VALUES (current_date)`)
			return err
		})
	}, func(err error) { fmt.Println(err) })
}
