package outbox_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// logged is a log whose lines a test can read.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// has reports whether one line contains all of these texts.
func (l *logged) has(all ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		found := true
		for _, s := range all {
			found = found && strings.Contains(line, s)
		}
		if found {
			return true
		}
	}
	return false
}

// A standby logs which replica leads, and logs an error if the leader belongs to another service.
func TestStandbyLogsTheLeader(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.Run(s.Relay(s.Out))
	s.Await(s.Queue, s.AppendNotes("a", 1))
	var sameLog, otherLog logged
	same, other := s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database))),
		s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database)))
	same.Log, other.Log, other.Name = zerolog.New(&sameLog), zerolog.New(&otherLog), "intruder"
	s.Run(same)
	s.Run(other)
	s.WaitFor("the replica logs the leader",
		func() bool {
			return sameLog.has(`"info"`, "another replica leads", `"leader":"notes"`,
				`"pid":`)
		})
	s.WaitFor("the other service logs that it publishes nothing", func() bool {
		return otherLog.has(`"error"`, "this relay publishes nothing", `"leader":"notes"`, `"host":`)
	})
	u, err := s.Out.SourceInUse(t.Context())
	if err != nil || !strings.HasPrefix(u.Leader, "notes on ") {
		t.Errorf("source in use %+v, error %v", u, err)
	}
	list, err := s.Out.Replicas(t.Context())
	if err != nil || len(list) != 3 || !list[0].Leads || list[1].Leads || list[2].Leads ||
		list[0].Keep != outbox.DefaultKeep {
		t.Errorf("replicas %+v, error %v", list, err)
	}
}
