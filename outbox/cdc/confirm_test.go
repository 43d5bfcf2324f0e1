package cdc_test

import (
	"slices"
	"testing"

	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// The server learns that a row is settled only after it is stored why. If the relay ends between
// the two, the row comes again. Otherwise an event that is to be held would be neither published
// nor held.
func TestNothingIsConfirmedBeforeItIsStored(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r := newRelay(t, s, outbox.FromStream)
	stop := s.Run(r)
	awaitLeader(s, outbox.FromStream, r)
	lock := s.Begin() // rows can be read, and not be held
	if _, err := lock.Exec(`LOCK TABLE outbox_held IN SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	bad := s.InsertRaw("a", "note.taken", `{}`, `[]`)
	s.WaitFor("the relay waits to hold the row", func() bool {
		return s.Count(`SELECT count(*) FROM pg_locks WHERE NOT granted
			AND relation = 'outbox_held'::regclass`) == 1
	})
	reply := ""
	for range 2 { // so that one status update has begun after the relay began to wait
		s.WaitFor("a status update of the stream", func() bool {
			var last string
			err := s.DB.Get(&last, `SELECT coalesce(max(r.reply_time)::text, '')
				FROM pg_stat_replication AS r JOIN pg_replication_slots AS s ON s.active_pid = r.pid
				WHERE s.database = current_database()`)
			if err != nil || last == reply || last == "" {
				return false
			}
			reply = last
			return true
		})
	}
	stop()
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	s.Run(r)
	awaitLeader(s, outbox.FromStream, r)
	s.Await(s.Queue, s.AppendNotes("b", 1))
	s.WaitFor("the event is held", func() bool { return slices.Contains(s.HeldIDs("true"), bad) })
}
