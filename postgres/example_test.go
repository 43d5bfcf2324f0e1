package postgres_test

import (
	"context"
	"fmt"
	"os"

	"github.com/quadrille-go/quadrille/postgres"
)

// What runs once among replicas runs under a leader, and what it writes needs its token.
func ExampleLeader() {
	ctx := context.Background()
	db, err := postgres.Open(os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	leader := postgres.Leader{DB: db, Name: "nightly report"}
	leader.Run(ctx, func(ctx context.Context, lead *postgres.Lead) error {
		return lead.Tx(ctx, func(tx postgres.Fenced) error {
			_, err := tx.Tx().ExecContext(ctx, `INSERT INTO reports (day) VALUES (current_date)`)
			return err
		})
	}, func(err error) { fmt.Println(err) })
}
