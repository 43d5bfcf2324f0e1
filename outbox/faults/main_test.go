package faults_test

import (
	"context"
	"flag"
	"os"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(outboxtest.RelayDatabase); url != "" {
		runRelay(url, os.Getenv(outboxtest.RelayBroker))
	}
	_ = flag.Set("test.parallel", "8") // the tests mostly wait for servers
	leaks.Main(m)
}

func runRelay(database, broker string) {
	db, err := pg.Open(database)
	if err != nil {
		panic(err)
	}
	r := outbox.Relay{
		Outbox: outbox.New(db), URL: broker, Database: database, Name: "notes",
		Exchange: outboxtest.Exchange, Log: zerolog.New(os.Stdout),
	}
	r.Run(context.Background())
}
