package outbox_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// settleAndLead moves the cursor over all rows, as a relay does, and returns a lead.
func settleAndLead(t *testing.T, s *outboxtest.Env) *pg.Lead {
	t.Helper()
	s.Exec(`DELETE FROM outbox_relays`)
	s.Exec(`UPDATE outbox_cursor SET a = pg_current_snapshot(), b = pg_current_snapshot(),
		last_seq = 0, txid = pg_current_xact_id()`)
	lead, err := outbox.Leader(s.DB).Try(t.Context())
	if err != nil || lead == nil {
		t.Fatalf("lead %v, %v", lead, err)
	}
	t.Cleanup(lead.Release)
	return lead
}

// remaining returns the ids of the events that are in the outbox.
func remaining(t *testing.T, s *outboxtest.Env) (ids []string) {
	t.Helper()
	if err := s.DB.Select(&ids, `SELECT id::text FROM outbox ORDER BY seq`); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestRetentionDeletesOldSettledRowsThatAreNotHeld(t *testing.T) {
	t.Parallel()
	s := outboxtest.NewWithoutBroker(t)
	old := s.AppendNotes("a", 1, 2)
	held := s.AppendNotes("b", 1)[0]
	young := s.AppendNotes("c", 1)
	lead := settleAndLead(t, s)
	s.Exec(`INSERT INTO outbox_held SELECT seq, 'b', 'refused', 1, now() FROM outbox WHERE id = $1`,
		held)
	unsettled := s.AppendNotes("d", 1)
	s.Exec(`UPDATE outbox SET created_at = now() - interval '3 hours' WHERE id <> $1`, young[0])
	r := s.Relay(s.Out)

	r.Keep = -1
	checkRetention(t, r, lead, s, slices.Concat(old, []string{held}, young, unsettled),
		"events are never deleted")
	r.Keep = 4 * time.Hour
	checkRetention(t, r, lead, s, slices.Concat(old, []string{held}, young, unsettled),
		"no event is old enough")
	r.Keep = 2 * time.Hour
	s.Exec(`UPDATE leaders SET token = token + 1`)
	if err := r.DeleteOld(t.Context(), lead); !errors.Is(err, pg.ErrSuperseded) {
		t.Errorf("error %v after another relay has taken the lead, want %v", err, pg.ErrSuperseded)
	}
	s.Exec(`UPDATE leaders SET token = token - 1`)
	checkRetention(t, r, lead, s, slices.Concat([]string{held}, young, unsettled),
		"old events are deleted")
	if n := r.Stats().Forgotten; n != 2 {
		t.Errorf("Stats counts %d deleted rows, want 2", n)
	}
}

// Rows that stay because they are held do not keep the rows behind them from being deleted.
func TestHeldRowsDoNotStopRetention(t *testing.T) {
	t.Parallel()
	s := outboxtest.NewWithoutBroker(t)
	s.Exec(`INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers, created_at)
		SELECT gen_random_uuid(), 'note', 'a', 'note.taken', '{}', '{}', now() - interval '3 hours'
			FROM generate_series(1, 1200)`)
	lead := settleAndLead(t, s)
	s.Exec(`INSERT INTO outbox_held SELECT seq, 'a', 'behind', 0, 'infinity' FROM outbox
		ORDER BY seq LIMIT 1150`)
	r := s.Relay(s.Out)
	r.Keep = time.Hour
	if err := r.DeleteOld(t.Context(), lead); err != nil {
		t.Fatal(err)
	}
	if n := r.Stats().Forgotten; n != 50 {
		t.Errorf("%d rows were deleted, want 50", n)
	}
}

// A replica with a shorter Keep than another one deletes no event that the other wants to keep,
// neither while the other runs nor for a day after it has ended.
func TestLongestKeepOfAllReplicasCounts(t *testing.T) {
	t.Parallel()
	s := outboxtest.NewWithoutBroker(t)
	ids := s.AppendNotes("a", 1)
	s.Exec(`UPDATE outbox SET created_at = now() - interval '3 hours'`)
	lead := settleAndLead(t, s)
	careful := s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database)))
	careful.URL, careful.Keep = "amqp://127.0.0.1:1/", 4*time.Hour // without a broker it never leads
	stop := s.Run(careful)
	s.WaitFor("it has announced itself",
		func() bool { return s.Count(`SELECT count(*) FROM outbox_relays`) == 1 })
	hasty := s.Relay(s.Out)
	hasty.Keep = time.Hour
	checkRetention(t, hasty, lead, s, ids, "another replica wants to keep it")
	stop()
	checkRetention(t, hasty, lead, s, ids, "a replica that has just ended wants to keep it")
	careful.Keep = -1
	stopSecond := s.Run(careful)
	s.WaitFor("it has announced that it deletes nothing", func() bool {
		return s.Count(`SELECT count(*) FROM outbox_relays WHERE keep = 'infinity'`) == 1
	})
	checkRetention(t, hasty, lead, s, ids, "another replica wants to delete nothing")
	s.Exec(`UPDATE outbox_relays SET keep = 1, seen_at = now() - interval '25 hours'
		WHERE keep <> 'infinity'`)
	checkRetention(t, hasty, lead, s, ids, "another replica wants to delete nothing")
	stopSecond()
	s.Exec(`UPDATE outbox_relays SET seen_at = now() - interval '25 hours'`)
	checkRetention(t, hasty, lead, s, nil, "no replica of the last day wants to keep it")
}

// Rows that are dated in the future do not keep the rows behind them from being deleted, even if
// there are more of them than one pass reads.
func TestRowsDatedInTheFutureDoNotStopRetention(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]int{"a batch": 1000, "more than a pass": 25_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := outboxtest.NewWithoutBroker(t)
			s.Exec(`INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers, created_at)
				SELECT gen_random_uuid(), 'note', 'a', 'note.taken', '{}', '{}', CASE
					WHEN g <= $1 THEN now() + interval '1 year' ELSE now() - interval '3 hours' END
				FROM generate_series(1, $1 + 1500) g`, ahead)
			lead := settleAndLead(t, s)
			r := s.Relay(s.Out)
			r.Keep = time.Hour
			for range 2 {
				if err := r.DeleteOld(t.Context(), lead); err != nil {
					t.Fatal(err)
				}
			}
			if n := r.Stats().Forgotten; n != 1500 {
				t.Errorf("%d rows were deleted, want 1500", n)
			}
		})
	}
}

func checkRetention(t *testing.T, r *outbox.Relay, lead *pg.Lead, s *outboxtest.Env,
	want []string,
	when string) {
	t.Helper()
	if err := r.DeleteOld(t.Context(), lead); err != nil {
		t.Fatal(err)
	}
	if left := remaining(t, s); !slices.Equal(left, want) {
		t.Errorf("when %s: %v are left, want %v", when, left, want)
	}
}

// A row that was quarantined by mistake is published when an operator requests its replay, and then
// the rows behind it.
func TestQuarantinedIsReleasedByReplay(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.Exec(
		`LOCK TABLE outbox_held; INSERT INTO outbox_held (seq, aggregate, reason, attempts, due)
			VALUES (1, 'a', 'a mistake', 1, 'infinity')`)
	ids := s.AppendNotes("a", 1, 2)
	r := s.Relay(s.Out)
	s.Run(r)
	s.Await(s.Queue, s.AppendNotes("b", 1))
	s.WaitFor("both rows are held", func() bool { return r.Stats().Held == 2 })
	if _, err := s.Out.ReplayIDs(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	s.Await(s.Queue, ids)
	s.WaitFor("nothing is held", func() bool { return r.Stats().Held == 0 })
}

// A row that cannot be published stays held after a request for its replay.
func TestUnpublishableRowStaysHeldAfterReplay(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	id := events.NewID()
	s.Exec(`INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers) VALUES ($1,
		'note', 'a', 'note.taken', '{}', '{"time":"never"}')`, id)
	r := s.Relay(s.Out)
	s.Run(r)
	s.WaitFor("the row is quarantined", func() bool {
		return s.Count(`SELECT count(*) FROM outbox_held
		WHERE due = 'infinity'`) == 1
	})
	if _, err := s.Out.ReplayIDs(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.WaitFor("the row is quarantined again", func() bool {
		return s.Count(`SELECT count(*) FROM outbox_held
		WHERE due = 'infinity'`) == 1
	})
	marker := s.AppendNotes("b", 1)
	if got := s.Receive(s.Queue, 1); got[0].MessageId != marker[0] {
		t.Errorf("%s was published: %s", got[0].MessageId, got[0].Body)
	}
}
