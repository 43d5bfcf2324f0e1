package faults_test

import (
	"syscall"
	"testing"

	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
	"github.com/quadrille-go/quadrille/postgres"
)

// OUT-07: a leader that is stopped with events in flight loses the lead, and what it does when it
// wakes counts for nothing.
func TestStoppedLeaderLosesTheLead(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	zombie := outboxtest.StartProcess(t, s.Database, proxy.URL)
	zombie.AwaitOutput("relay leads")
	s.Await(s.Queue, s.AppendNotes("a", 0))
	s.AwaitSettled()
	proxy.Hold(outboxtest.FromBroker)
	ids := s.AppendNotes("a", 1, 2, 3) // published, and their confirms are on the way
	s.Await(s.Queue, ids)
	zombie.Signal(syscall.SIGSTOP)
	proxy.Release()
	successor := s.Relay(s.Out)
	stop := s.Run(successor)
	s.WaitFor("the standby leads", func() bool { return successor.Stats().Leading })
	s.Await(s.Queue, ids) // again: nobody knew that they were confirmed
	s.Await(s.Queue, s.AppendNotes("a", 4))
	s.WaitFor("all is settled", func() bool { return successor.Stats().Published == 4 })
	const where = `SELECT epoch + last_seq + hashtext(a::text) + hashtext(b::text) FROM outbox_cursor`
	cursor := s.Count(where)
	zombie.Signal(syscall.SIGCONT)
	zombie.AwaitOutput("broker session ended")
	if now := s.Count(where); now != cursor || !successor.Stats().Leading {
		t.Errorf("the zombie has moved the cursor\n%s", s.Diagnose())
	}
	s.Await(s.Queue, s.AppendNotes("a", 5))
	stop()
	zombie.AwaitOutput("relay leads") // it has become an ordinary replica
	s.Await(s.Queue, s.AppendNotes("a", 6))
}

// A leader that is stopped while it is being sent an answer, which no time-out of an idle session
// ends.
func TestLeaderStoppedWhileReadingLosesTheLead(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	lead, err := postgres.Leader{DB: s.DB, Name: "reader"}.Try(t.Context())
	if err != nil || lead == nil {
		t.Fatalf("lead %v, %v", lead, err)
	}
	t.Cleanup(lead.Release)
	rows, err := lead.Conn().QueryContext(t.Context(), `SELECT repeat('x', 1000)
		FROM generate_series(1, 100000)`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // nobody reads them
	s.WaitFor("another one leads", func() bool {
		next, err := postgres.Leader{DB: s.DB, Name: "reader"}.Try(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if next == nil {
			return false
		}
		next.Release()
		return true
	})
}
