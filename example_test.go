package quadrille_test

// README begin
import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

type UserJoined struct{ ID, Email string }

func (UserJoined) EventType() string { return "user.joined" }
func (u UserJoined) Subject() string { return u.ID }

func ExampleService() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	welcome := func(ctx context.Context, tx *sqlx.Tx, e events.Of[UserJoined]) error {
		fmt.Println("welcome", e.Data.Email) // SQL in tx takes effect exactly once
		stop()
		return nil
	}
	members, err := quadrille.New(quadrille.Config{
		Name:      "members",
		Publishes: []events.Payload{UserJoined{}},
		Handlers:  []consumer.Handler{consumer.Handle(welcome)},
		Database:  os.Getenv("DATABASE_URL"), // postgres://…?sslmode=disable
		AMQP:      os.Getenv("AMQP_URL"),     // amqp://…
	})
	if err != nil {
		log.Fatal(err)
	}
	joined := func(ctx context.Context, tx *sqlx.Tx) error { // published if and only if tx commits
		return members.Publish(ctx, tx, UserJoined{ID: "42", Email: "ada@example.com"})
	}
	if err := members.Tx(ctx, joined); err != nil {
		log.Fatal(err)
	}
	if err := members.Run(ctx); err != nil { // until Ctrl-C
		log.Fatal(err)
	}
}

// README end
