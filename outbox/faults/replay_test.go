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

// settleAll runs a relay until all rows are settled, and returns the epoch of its lead.
func settleAll(t *testing.T, s *outboxtest.Env) (epoch int64) {
	t.Helper()
	stop := s.Run(s.Relay(s.Out))
	s.WaitFor("all rows are settled", func() bool {
		return s.Count(`SELECT count(*) FROM outbox_cursor WHERE epoch > 0 AND a::text = b::text`) == 1 &&
			s.Count(`SELECT count(*) FROM outbox, outbox_cursor WHERE NOT pg_visible_in_snapshot(outbox.txid,
				a)`) == 0
	})
	stop()
	return s.Count(`SELECT epoch FROM outbox_cursor`)
}

// A replay includes events that were confirmed in a window that is still open.
func TestReplayInAnOpenWindow(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	ids := s.AppendNotes("a", 1, 2, 3, 4, 5)
	epoch := settleAll(t, s)
	s.Receive(s.Queue, 5)
	// A crash leaves such a cursor: the window has five rows, of which three were confirmed.
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
		t.Errorf("%d events were replayed", n)
	}
}

func isDone(s *outboxtest.Env, request int64) func() bool {
	return func() bool {
		return s.Count(`SELECT count(*) FROM outbox_replay WHERE id = $1 AND done_at IS NOT NULL`,
			request) == 1
	}
}

// A request is done only when all of its events were published and confirmed. Events that are held,
// that the broker refuses, or that are no longer in the outbox are counted apart.
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
	s.WaitFor("one event is quarantined",
		func() bool { return len(s.HeldIDs(outboxtest.QuarantinedSQL)) == 1 })
	s.WaitFor("one event is unroutable",
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
		list, _, err := s.Out.Replays(t.Context(), 0, outbox.MaxReplays)
		if err != nil {
			t.Fatal(err)
		}
		if got := list[0]; got.Published != c.published || got.Refused != c.refused ||
			got.Held != c.held || (got.DoneAt != nil) != c.done ||
			!strings.HasPrefix(got.Reason, c.reason) {
			t.Errorf("the request %+v, want %+v", got, c)
		}
	}
}

// An event before a long history is dated in the future. It must neither hide nor delay the events
// after that history.
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
		t.Errorf("%d events were replayed", n)
	}
}

func hasEnded(s *outboxtest.Env, request int64) func() bool {
	return func() bool {
		return s.Count(`SELECT count(*) FROM outbox_replay WHERE id = $1 AND ended_at IS NOT NULL`,
			request) == 1
	}
}

// An event that the retention deletes before its turn must not count as published.
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
		t.Error("the request does not count one published and one refused event, or it is done")
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
	if got := outboxtest.MessageIDs(s.Receive(s.Queue, 2)); !slices.Equal(got,
		[]string{ids[0], ids[2]}) {
		t.Errorf("replayed %v, want %v", got, []string{ids[0], ids[2]})
	}
	s.WaitFor("the request is done", isDone(s, request))
	list, _, err := s.Out.Replays(t.Context(), 0, outbox.MaxReplays)
	if err != nil || len(list) != 1 || list[0].ID != request || list[0].Published != 2 ||
		*list[0].Events != 2 {
		t.Errorf("replays %+v, error %v", list, err)
	}
	s.ExpectNoMore(s.Queue)
}

// A broker has lost all its messages. The replay publishes them again with the same ids, even if
// the lead changes in the middle of it.
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
	s.WaitFor("a part of the request is published", func() bool {
		return s.Count(`SELECT published FROM outbox_replay WHERE id = $1`, request) > 0
	})
	stop()
	if isDone(s, request)() {
		t.Fatal("the request was done before the lead could change: the test proves nothing")
	}
	next := s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database)))
	s.Run(next)
	s.WaitFor("the request is done", isDone(s, request))
	got := map[string]bool{}
	receive, endConsumer := s.Consume(s.Queue)
	marker := s.AppendNotes("marker", 1)[0] // it is published after the replay
	for id := receive().MessageId; id != marker; id = receive().MessageId {
		got[id] = true
	}
	endConsumer()
	for _, id := range ids {
		if !got[id] {
			t.Errorf("%s was not replayed", id)
		}
	}
	if got[before[0]] || len(got) != len(ids) {
		t.Errorf("%d events were replayed, want %d (an older one among them: %t)", len(got), len(ids),
			got[before[0]])
	}
}

// seq returns the numbers from first to last.
func seq(from, to int) (numbers []int) {
	for n := from; n <= to; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}
