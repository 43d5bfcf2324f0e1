package cdc_test

import (
	"context"
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/outbox/cdc"
)

// A service that can stream its outbox out of PostgreSQL's log, once an operator wants it to:
// quadrille relay use stream SERVICE.
func ExampleFor() {
	database, log := os.Getenv("DATABASE_URL"), zerolog.New(os.Stderr)
	s := &quadrille.Service{
		Name: "members", Database: database, AMQP: os.Getenv("AMQP_URL"),
		Stream: cdc.For(database, log), Log: log,
	}
	if err := s.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
}
