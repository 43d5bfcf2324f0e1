package faults_test

import (
	"syscall"
	"testing"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// OUT-07: a leader that is stopped with events in flight loses the lead. When it continues, it
// cannot move the cursor.
func TestStoppedLeaderLosesTheLead(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	zombie := outboxtest.StartProcess(t, s.Database, proxy.URL)
	zombie.AwaitOutput("relay leads")
	s.Await(s.Queue, s.AppendNotes("a", 0))
	s.AwaitSettled()
	proxy.Hold(outboxtest.FromBroker)
	ids := s.AppendNotes("a", 1, 2, 3) // published, but their confirms are held back
	s.Await(s.Queue, ids)
	zombie.Signal(syscall.SIGSTOP)
	proxy.Release()
	successor := s.Relay(s.Out)
	stop := s.Run(successor)
	s.WaitFor("the standby leads", func() bool { return successor.Stats().Leading })
	s.Await(s.Queue, ids) // published again, since no cursor has passed them
	s.Await(s.Queue, s.AppendNotes("a", 4))
	s.WaitFor("all events are published", func() bool { return successor.Stats().Published == 4 })
	const cursorSQL = `SELECT epoch + last_seq + hashtext(a::text) + hashtext(b::text)
		FROM outbox_cursor`
	cursor := s.Count(cursorSQL)
	zombie.Signal(syscall.SIGCONT)
	zombie.AwaitOutput("broker session ended")
	if now := s.Count(cursorSQL); now != cursor || !successor.Stats().Leading {
		t.Errorf("the former leader has moved the cursor\n%s", s.Diagnose())
	}
	s.Await(s.Queue, s.AppendNotes("a", 5))
	stop()
	zombie.AwaitOutput("relay leads") // it is a replica again
	s.Await(s.Queue, s.AppendNotes("a", 6))
}

// A leader is stopped while the server sends it an answer. Its session is not idle, so the timeout
// for idle sessions does not end it.
func TestLeaderStoppedWhileReadingLosesTheLead(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	lead, err := pg.Leader{DB: s.DB, Name: "reader"}.Try(t.Context())
	if err != nil || lead == nil {
		t.Fatalf("lead %v, %v", lead, err)
	}
	t.Cleanup(lead.Release)
	rows, err := lead.Conn().QueryContext(t.Context(), `SELECT repeat('x', 1000)
		FROM generate_series(1, 100000)`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // the test does not read them
	s.WaitFor("another replica leads", func() bool {
		next, err := pg.Leader{DB: s.DB, Name: "reader"}.Try(t.Context())
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
