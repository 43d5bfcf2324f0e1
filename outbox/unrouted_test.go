package outbox_test

import (
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// Events that no queue is bound for are lost. They are counted, and they are logged unless their
// type is optional.
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
			s.WaitFor("all events are published", func() bool { return r.Stats().Published == 11 })
			if st := r.Stats(); st.Unrouted != 10 || st.Held != 0 {
				t.Errorf("stats %+v", st)
			}
			if logged := log.has(`"warn"`, "no queue was bound",
				`"type":"orphan.born"`); logged == optional {
				t.Errorf("logged: %t, optional: %t", logged, optional)
			}
		})
	}
}
