package cdc_test

import (
	"testing"

	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

func TestStreamRelays(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r := s.Relay(s.Out)
	r.Source = cdcSource(t, s)
	before := s.AppendNotes("a", 1, 2, 3)
	s.Run(r)
	s.Await(s.Queue, before)
	if err := s.Out.UseSource(t.Context(), outbox.FromStream); err != nil {
		t.Fatal(err)
	}
	s.WaitFor("the relay streams", func() bool { return r.Stats().Streaming })
	for n := range 20 {
		s.Await(s.Queue, s.AppendNotes("a", n, n+1))
	}
	if err := s.Out.UseSource(t.Context(), outbox.FromWindow); err != nil {
		t.Fatal(err)
	}
	s.WaitFor("the relay uses the window", func() bool { return !r.Stats().Streaming })
	s.Await(s.Queue, s.AppendNotes("a", 100))
	s.WaitFor("the slot is dropped", func() bool {
		return s.Count(
			`SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`) == 0
	})
}
