package cdc_test

import (
	"context"
	"os"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/cdc"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// relayEndlessly runs a relay until the process is killed. outboxtest.StartProcess starts this test
// binary for it.
func relayEndlessly(database, broker string) {
	db, err := pg.Open(database)
	if err != nil {
		panic(err)
	}
	log := zerolog.New(os.Stdout)
	r := outbox.Relay{
		Outbox: outbox.New(db), URL: broker, Database: database, Name: "notes",
		Exchange: outboxtest.Exchange, Log: log,
		Source: cdc.Source{URL: database, DB: db, Log: log},
	}
	r.Run(context.Background())
}
