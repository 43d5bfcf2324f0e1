package cdc_test

import (
	"flag"
	"os"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/outbox/cdc"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(outboxtest.RelayDatabase); url != "" {
		relayEndlessly(url, os.Getenv(outboxtest.RelayBroker))
	}
	_ = flag.Set("test.parallel", "8") // the tests mostly wait for servers
	leaks.Main(m)
}

// cdcSource returns the source for the outbox of s. It drops the slot at the end of the test,
// because a database with a slot cannot be dropped.
func cdcSource(t testing.TB, s *outboxtest.Env) cdc.Source {
	c := cdc.Source{URL: s.Database, DB: s.DB, Log: zerolog.New(zerolog.NewTestWriter(t))}
	t.Cleanup(func() {
		if _, err := s.DB.Exec(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
			WHERE database = current_database() AND active`); err != nil {
			t.Error(err)
		}
		s.WaitFor("the slot is dropped", func() bool {
			_, err := s.DB.Exec(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
				WHERE database = current_database()`)
			return err == nil
		})
	})
	return c
}
