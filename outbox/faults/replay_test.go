package faults_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// settleAll runs a relay until all that was said is settled, and returns the epoch of its lead.
func settleAll(t *testing.T, s *outboxtest.Env) (epoch int64) {
	t.Helper()
	stop := s.Run(s.Relay(s.Out))
	s.WaitFor("all is settled or held", func() bool {
		return s.Count(`SELECT count(*) FROM outbox_cursor WHERE epoch > 0 AND a::text = b::text`) == 1 &&
			s.Count(`SELECT count(*) FROM outbox, outbox_cursor WHERE NOT pg_visible_in_snapshot(outbox.txid,
				a)`) == 0
	})
	stop()
	return s.Count(`SELECT epoch FROM outbox_cursor`)
}

// What was confirmed in a window that is still open is published again as well.
func TestReplayInAnOpenWindow(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	ids := s.AppendNotes("a", 1, 2, 3, 4, 5)
	epoch := settleAll(t, s)
	s.Receive(s.Queue, 5)
	// As a crash leaves it: a window over all five, of which three were confirmed.
	s.Exec(`UPDATE outbox_cursor SET a = '3:3:', last_seq = (SELECT seq FROM outbox WHERE id = $1),
		txid = pg_current_xact_id() WHERE epoch = $2`, ids[2], epoch)
	request, err := s.Out.ReplayIDs(t.Context(), ids[:3]...)
	if err != nil {
		t.Fatal(err)
	}
	next := s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database)))
	s.Run(next)
	s.Await(s.Queue, ids)
	s.WaitFor("the request is done", isDone(s, request))
	if n := s.Count(`SELECT published FROM outbox_replay`); n != 3 {
		t.Errorf("%d were published again", n)
	}
}

func isDone(s *outboxtest.Env, request int64) func() bool {
	return func() bool {
		return s.Count(`SELECT count(*) FROM outbox_replay WHERE id = $1 AND done_at IS NOT NULL`,
			request) == 1
	}
}

// A request is done when all was published and confirmed. What is held, what the broker refuses and
// what is no longer there is shown as such.
func TestReplayIsDoneOnlyWhenAllWasPublished(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.Bind(s.Queue, "orphan.born")
	stop := s.Run(s.Relay(s.Out))
	orphan, lost := outboxtest.Event(outboxtest.Orphan{On: "a"}),
		outboxtest.Event(outboxtest.Orphan{On: "b"})
	s.Append(orphan)
	ids := s.AppendNotes("a", 1)
	s.Receive(s.Queue, 2)
	s.AwaitSettled()
	stop()
	if err := s.Admin.QueueUnbind(s.Queue, "orphan.born", outboxtest.Exchange, nil); err != nil {
		t.Fatal(err)
	}
	r := s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database)))
	r.Mandatory = outboxtest.IsOrphan
	s.Append(lost)
	bad := s.InsertRaw("c", "note.taken", `{}`, `[]`)
	s.Run(r)
	s.WaitFor("one waits for a person", func() bool { return len(s.HeldIDs(outboxtest.QuarantinedSQL)) == 1 })
	s.WaitFor("one waits for a subscriber",
		func() bool { return len(s.HeldIDs(`h.kind = 'unroutable'`)) == 1 })
	s.Exec(`UPDATE outbox_held SET due = now() + interval '1 hour' WHERE kind = 'unroutable'`)
	for _, c := range []struct {
		ids                      []string
		published, refused, held int64
		reason                   string
		done                     bool
	}{
		{ids: ids, published: 1, done: true},
		{ids: append(ids, orphan.ID), published: 1, refused: 1, reason: "unroutable"},
		{ids: append(ids, lost.ID), published: 1, held: 1, reason: "held: unroutable"},
		{ids: []string{bad}, held: 1, reason: "held: "},
	} {
		request, err := s.Out.ReplayIDs(t.Context(), c.ids...)
		if err != nil {
			t.Fatal(err)
		}
		s.WaitFor("the request has ended", hasEnded(s, request))
		list, err := s.Out.Replays(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := list[0]; got.Published != c.published || got.Refused != c.refused ||
			got.Held != c.held || (got.DoneAt != nil) != c.done ||
			!strings.HasPrefix(got.Reason, c.reason) {
			t.Errorf("%+v, want %+v", got, c)
		}
	}
}

// One event that is dated in the future, before a long history, neither hides the others nor lets
// them wait.
func TestReplaySinceSkipsOlderRows(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	ids := s.AppendNotes("a", 1)
	s.Exec(`UPDATE outbox SET created_at = now() + interval '1 year'`)
	s.Exec(`INSERT INTO outbox (txid, id, aggregatetype, aggregateid, type, payload, headers,
		created_at)
		SELECT '2', gen_random_uuid(), 'note', 'old', 'note.taken', '{}', $1, now() - interval '2 hours'
			FROM generate_series(1, 12000)`, outboxtest.PlainHeaders)
	ids = append(ids, s.AppendNotes("b", 1)...)
	s.Run(s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database))))
	s.Receive(s.Queue, 2)
	request, err := s.Out.ReplaySince(t.Context(), time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	s.Await(s.Queue, ids)
	s.WaitFor("the request is done", isDone(s, request))
	if n := s.Count(`SELECT published FROM outbox_replay WHERE id = $1`, request); n != 2 {
		t.Errorf("%d were published again", n)
	}
}

func hasEnded(s *outboxtest.Env, request int64) func() bool {
	return func() bool {
		return s.Count(`SELECT count(*) FROM outbox_replay WHERE id = $1 AND ended_at IS NOT NULL`,
			request) == 1
	}
}

// An event whose time has passed before its turn is not said to be published.
func TestDeletedEventIsNotReportedAsReplayed(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	ids := s.AppendNotes("a", 1, 2)
	settleAll(t, s)
	request, err := s.Out.ReplayIDs(t.Context(), ids...)
	if err != nil {
		t.Fatal(err)
	}
	s.Exec(`DELETE FROM outbox WHERE id = $1`, ids[0])
	s.Run(s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database))))
	s.WaitFor("the request has ended", hasEnded(s, request))
	if n := s.Count(`SELECT count(*) FROM outbox_replay WHERE published = 1 AND refused = 1
		AND done_at IS NULL`); n != 1 {
		t.Error("the request is done")
	}
}

func TestReplayByID(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	ids := s.AppendNotes("a", 1, 2, 3)
	s.Run(s.Relay(s.Out))
	s.Receive(s.Queue, 3)
	missing := events.NewID()
	if _, err := s.Out.ReplayIDs(t.Context(), ids[0], missing); !errors.Is(err,
		outbox.ErrNoSuchEvent) {
		t.Fatalf("error %v", err)
	}
	request, err := s.Out.ReplayIDs(t.Context(), ids[2], ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := outboxtest.MessageIDs(s.Receive(s.Queue, 2)); !slices.Equal(got, []string{ids[0], ids[2]}) {
		t.Errorf("received %v again, asked for %v", got, []string{ids[0], ids[2]})
	}
	s.WaitFor("the request is done", isDone(s, request))
	list, err := s.Out.Replays(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != request || list[0].Published != 2 ||
		*list[0].Events != 2 {
		t.Errorf("listed %+v (%v)", list, err)
	}
	s.ExpectNoMore(s.Queue)
}

// A broker that lost everything is made whole from the outbox, with the same ids, also when the
// lead changes in the middle of it.
func TestReplaySinceRestoresALostBroker(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	before := s.AppendNotes("before", 1)
	s.Exec(`UPDATE outbox SET created_at = now() - interval '1 hour'`)
	var ids []string
	for n := range 10 {
		ids = append(ids, s.AppendNotes(outboxtest.Aggregate(n), seq(1, 40)...)...)
	}
	r := s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database)))
	stop := s.Run(r)
	s.Receive(s.Queue, len(ids)+1)
	if _, err := s.Admin.QueueDelete(s.Queue, false, false, false); err != nil {
		t.Fatal(err)
	}
	s.DeclareQueue(s.Queue, nil)
	s.Bind(s.Queue, "note.taken")
	request, err := s.Out.ReplaySince(t.Context(), time.Now().Add(-30*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	s.WaitFor("a part was published", func() bool {
		return s.Count(`SELECT published FROM outbox_replay WHERE id = $1`, request) > 0
	})
	stop()
	if isDone(s, request)() {
		t.Fatal("it was done before the lead could change")
	}
	next := s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database)))
	s.Run(next)
	s.WaitFor("the request is done", isDone(s, request))
	got := map[string]bool{}
	come, end := s.Consume(s.Queue)
	marker := s.AppendNotes("marker", 1)[0] // it is published after them
	for id := come().MessageId; id != marker; id = come().MessageId {
		got[id] = true
	}
	end()
	for _, id := range ids {
		if !got[id] {
			t.Errorf("%s did not come again", id)
		}
	}
	if got[before[0]] || len(got) != len(ids) {
		t.Errorf("%d events came again, asked for %d (an older one: %t)", len(got), len(ids),
			got[before[0]])
	}
}

func seq(from, to int) (numbers []int) {
	for n := from; n <= to; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}
