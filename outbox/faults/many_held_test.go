package faults_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// many refused rows would make the broker count as broken.
const many = outbox.MaxHeld + 100

// Any number of rows that cannot be published must not stop other events: rows that no queue is
// bound for, that are too large for the broker, whose type the broker's user may not publish, or
// that wait behind another row.
func TestManyUnpublishableRowsDoNotStopOthers(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(t *testing.T, s *outboxtest.Env, r *outbox.Relay){
		"unroutable": func(_ *testing.T, s *outboxtest.Env, r *outbox.Relay) {
			r.Mandatory = outboxtest.IsOrphan
			s.Append(orphans(many)...)
		},
		"too large": func(_ *testing.T, s *outboxtest.Env, _ *outbox.Relay) {
			for n := range 60 { // without limits, each would end two sessions
				s.InsertRaw(outboxtest.Aggregate(n), "note.taken", outboxtest.TooBig(), outboxtest.PlainHeaders)
			}
		},
		"forbidden": func(t *testing.T, s *outboxtest.Env, r *outbox.Relay) {
			r.URL = servertest.User(t, s.AMQP, s.Manage, "relay", "", ".*", ".*")
			user, err := url.Parse(r.URL)
			if err != nil {
				t.Fatal(err)
			}
			path := fmt.Sprintf("/api/topic-permissions/%s/%s", strings.TrimPrefix(user.Path, "/"),
				user.User.Username())
			if err := localrun.Manage(t.Context(), s.Manage, http.MethodPut, path, map[string]string{
				"exchange": outboxtest.Exchange, "write": "^note", "read": ".*",
			}, nil); err != nil {
				t.Fatal(err)
			}
			s.Append(orphans(many)...)
		},
		"behind one": func(_ *testing.T, s *outboxtest.Env, r *outbox.Relay) {
			r.Mandatory = outboxtest.IsOrphan
			s.Append(outboxtest.Event(outboxtest.Orphan{On: "a"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := outboxtest.New(t)
			r := s.Relay(s.Out)
			write(t, s, r)
			want := s.Count(`SELECT count(*) FROM outbox`)
			s.Run(r)
			if name == "behind one" {
				awaitHeld(s, 1)
				s.AppendNotes("a", seq(1, many)...)
				want += many
			}
			awaitHeld(s, want)
			if r.Mandatory != nil {
				s.WaitFor("the held rows are published again", func() bool {
					return s.Count(`SELECT max(attempts) FROM outbox_held`) > 2
				})
			}
			s.Await(s.Queue, s.AppendNotes("innocent", 1))
		})
	}
}

// awaitHeld waits until exactly n rows are held.
func awaitHeld(s *outboxtest.Env, n int64) {
	s.WaitFor("the rows are held",
		func() bool { return s.Count(`SELECT count(*) FROM outbox_held`) == n })
}

func orphans(n int) (published []events.Event) {
	for i := range n {
		published = append(published, outboxtest.Event(outboxtest.Orphan{On: outboxtest.Aggregate(i)}))
	}
	return published
}

// The rows behind a released one are published in batches, in turns with the rows of windows.
func TestReleasedRowsDoNotDelayOtherAggregates(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	r := s.Relay(s.Out)
	r.URL, r.Mandatory = proxy.URL, outboxtest.IsOrphan
	const behind = 3000
	s.Append(outboxtest.Event(outboxtest.Orphan{On: "a"}))
	s.Run(r)
	awaitHeld(s, 1)
	s.AppendNotes("a", seq(1, behind)...)
	awaitHeld(s, behind+1)
	s.AwaitSettled()
	s.Exec(`UPDATE outbox_held SET due = 'infinity'`)
	s.Bind(s.Queue, "orphan.born")
	proxy.Hold(outboxtest.FromBroker)
	s.Exec(`UPDATE outbox_held SET due = now() WHERE seq = (SELECT min(seq) FROM outbox_held)`)
	next, stop := s.Consume(s.Queue)
	defer stop()
	next() // the first row is published, and its confirm is held back
	innocent := s.AppendNotes("innocent", 1)[0]
	proxy.Release()
	for n := 1; next().MessageId != innocent; n++ {
		if n == behind {
			t.Fatal("all rows behind the released one were published first")
		}
	}
	s.WaitFor("nothing is held",
		func() bool { return s.Count(`SELECT count(*) FROM outbox_held`) == 0 })
}
