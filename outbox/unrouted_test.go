package outbox_test

import (
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// What is published while nobody is bound for it is gone: it is counted, and said, unless that is
// as it should be.
func TestUnroutedEventsAreCountedAndLogged(t *testing.T) {
	t.Parallel()
	for name, optional := range map[string]bool{"by mistake": false, "as declared": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := outboxtest.New(t)
			var log logged
			r := s.Relay(s.Out)
			r.Log = zerolog.New(&log)
			r.Optional = func(string) bool { return optional }
			for n := range 10 {
				s.Append(outboxtest.Event(outboxtest.Orphan{On: outboxtest.Aggregate(n)}))
			}
			s.Run(r)
			s.Await(s.Queue, s.AppendNotes("a", 1))
			s.WaitFor("all are settled", func() bool { return r.Stats().Published == 11 })
			if st := r.Stats(); st.Unrouted != 10 || st.Held != 0 {
				t.Errorf("stats %+v", st)
			}
			if published := log.has(`"warn"`, "no queue was bound",
				`"type":"orphan.born"`); published == optional {
				t.Errorf("said: %t", published)
			}
		})
	}
}
