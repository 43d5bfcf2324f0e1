package outbox_test

import (
	"slices"
	"testing"

	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// A migration changes the types of columns while the relay runs, so that the statements that are
// prepared in its sessions become invalid. The relay prepares them again and keeps the lead.
func TestMigrationDoesNotStopTheRelay(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.Run(s.Relay(s.Out))
	for n := range 3 {
		ids := s.AppendNotes("a", n)
		if got := outboxtest.MessageIDs(s.Receive(s.Queue, 1)); !slices.Equal(got, ids) {
			t.Fatalf("received %v, committed %v", got, ids)
		}
	}
	lead := s.Count(`SELECT token FROM leaders WHERE name = 'outbox'`)
	for n, change := range []string{
		`ALTER TABLE outbox ALTER COLUMN aggregateid TYPE varchar(200)`,
		`ALTER TABLE outbox ALTER COLUMN type TYPE varchar(200),
			ADD COLUMN of_a_later_release int NOT NULL DEFAULT 0`,
		`ALTER TABLE outbox_held ALTER COLUMN attempts TYPE bigint;
			ALTER TABLE outbox_cursor ALTER COLUMN source TYPE varchar(20)`,
	} {
		s.Exec(change)
		ids := s.AppendNotes("b", n, n+1)
		if got := outboxtest.MessageIDs(s.Receive(s.Queue, 2)); !slices.Equal(got, ids) {
			t.Fatalf("after %s: received %v, committed %v", change, got, ids)
		}
	}
	if now := s.Count(`SELECT token FROM leaders WHERE name = 'outbox'`); now != lead {
		t.Errorf("the lead has changed from token %d to %d", lead, now)
	}
}
