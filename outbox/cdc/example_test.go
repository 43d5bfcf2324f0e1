package cdc_test

import (
	"context"
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/outbox/cdc"
)

// The service can stream its outbox from PostgreSQL's write-ahead log. An operator switches to the
// stream with: quadrille relay use stream SERVICE.
func ExampleFor() {
	database, log := os.Getenv("DATABASE_URL"), zerolog.New(os.Stderr)
	s, err := quadrille.New(quadrille.Config{
		Name: "members", Database: database, AMQP: os.Getenv("AMQP_URL"),
		Stream: cdc.For(database, log), Log: log,
	})
	if err != nil {
		log.Fatal().Err(err).Send()
	}
	if err := s.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
}
