package outbox_test

import (
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// relayNotes runs a relay until it has published n notes and its cursor has passed them.
func relayNotes(s *outboxtest.Env, on string, n int) {
	r := s.Relay(s.Out)
	stop := s.Run(r)
	for i := range n {
		s.Await(s.Queue, s.AppendNotes(on, i+1))
	}
	s.WaitFor("all rows are settled", func() bool {
		return s.Count(`SELECT count(*) FROM outbox_cursor k, outbox
			WHERE NOT pg_visible_in_snapshot(outbox.txid, k.a)`) == 0
	})
	stop()
}

// pretendCopied makes the database look as if it was copied from a cluster whose transaction ids
// were ahead of this cluster's. The updates give the rows another xmin, as a copy does.
func pretendCopied(s *outboxtest.Env, ahead int64) {
	const shifted = `(SELECT (greatest(3, pg_snapshot_xmin(c)::text::bigint + $1))::text || ':'
		|| (greatest(3, pg_snapshot_xmax(c)::text::bigint + $1))::text || ':'
		|| coalesce((SELECT string_agg((x::text::bigint + $1)::text, ',' ORDER BY x::text::bigint)
			FROM pg_snapshot_xip(c) x), ''))::pg_snapshot`
	s.Exec(`UPDATE outbox SET txid = greatest(3, txid::text::bigint + $1)::text::xid8`, ahead)
	s.Exec(`UPDATE outbox_cursor SET system = 'another', a = f.a, b = f.b, txid = greatest(3,
		txid::text::bigint + $1)::text::xid8
		FROM (SELECT `+replaceC(shifted, "a")+` AS a, `+replaceC(shifted, "b")+
		` AS b FROM outbox_cursor) f`, ahead)
}

func replaceC(sql, column string) string { return strings.ReplaceAll(sql, "(c)", "("+column+")") }

func TestRestoredOutboxLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]int64{"from a busier cluster": 1 << 33,
		"from a younger cluster": -200, "from a cluster of the same age": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := outboxtest.New(t)
			relayNotes(s, "a", 3)
			unsent := s.AppendNotes("b", 1, 2)
			pretendCopied(s, ahead)
			early := s.AppendNotes("c", 1) // written before the cursor is rebased
			early = append(early, savepoint(s))
			if err := outbox.Fit(t.Context(), s.DB); err != nil {
				t.Fatal(err)
			}
			late := s.AppendNotes("d", 1)
			s.Run(s.Relay(s.Out))
			expectOnly(t, s, append(append(unsent, early...), late...))
			// The cursor fits now, and a second call must leave it alone.
			epoch := s.Count(`SELECT epoch FROM outbox_cursor`)
			if err := outbox.Fit(t.Context(), s.DB); err != nil {
				t.Fatal(err)
			}
			if got := s.Count(`SELECT epoch FROM outbox_cursor`); got != epoch {
				t.Errorf("Fit has changed a cursor that fits: epoch %d, was %d", got, epoch)
			}
		})
	}
}

// savepoint appends an event in a subtransaction, whose id becomes the xmin of the row.
func savepoint(s *outboxtest.Env) string {
	tx := s.Begin()
	e := outboxtest.Event(outboxtest.Note{On: "savepoint", N: 1})
	if _, err := tx.Exec(`SAVEPOINT outer_one; SAVEPOINT inner_one`); err != nil {
		panic(err)
	}
	s.AppendIn(tx, e)
	if _, err := tx.Exec(`RELEASE inner_one; RELEASE outer_one`); err != nil {
		panic(err)
	}
	s.Commit(tx)
	return e.ID
}

// expectOnly fails the test unless exactly these events are delivered, each once.
func expectOnly(t *testing.T, s *outboxtest.Env, want []string) {
	t.Helper()
	missing := map[string]bool{}
	for _, id := range want {
		missing[id] = true
	}
	for _, d := range s.Receive(s.Queue, len(want)) {
		if !missing[d.MessageId] {
			t.Errorf("%s was delivered, though it was published before the copy: %s", d.MessageId, d.Body)
		}
		delete(missing, d.MessageId)
	}
	s.ExpectNoMore(s.Queue)
	if len(missing) > 0 {
		t.Errorf("lost: %v\n%s", missing, s.Diagnose())
	}
}

// pg_upgrade keeps all transaction ids but changes the identifier of the cluster.
func TestUpgradedClusterRepeatsNothing(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	relayNotes(s, "a", 3)
	unsent := s.AppendNotes("b", 1)
	s.Exec(`UPDATE outbox_cursor SET system = 'before pg_upgrade', txid = pg_current_xact_id()`)
	s.Run(s.Relay(s.Out))
	expectOnly(t, s, unsent)
}

// A leader rebases the cursor by itself, so that a service that does not call Fit loses none of the
// events that it appends later.
func TestLeaderFitsTheCursor(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	relayNotes(s, "a", 2)
	unsent := s.AppendNotes("b", 1)
	pretendCopied(s, 1<<33)
	s.Run(s.Relay(s.Out))
	expectOnly(t, s, unsent)
}

// While another replica leads, Fit waits until that replica has rebased the cursor or has lost the
// lead.
func TestFitWaitsForTheLeader(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	relayNotes(s, "a", 2)
	unsent := s.AppendNotes("b", 1)
	pretendCopied(s, 1<<33)
	var other *pg.Lead
	s.WaitFor("another replica leads", func() (leads bool) {
		var err error
		other, err = pg.Leader{DB: s.DB, Name: "outbox"}.Try(t.Context())
		return err == nil && other != nil
	})
	fitted := make(chan error, 1)
	db := outboxtest.OpenDB(t, s.Database+"&application_name=fitting")
	go func() { fitted <- outbox.Fit(t.Context(), db) }()
	s.WaitFor("Fit has tried to get the lead", func() bool {
		return s.Count(`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fitting'
			AND query LIKE '%pg_try_advisory_lock%'`) > 0
	})
	other.Release()
	if err := <-fitted; err != nil {
		t.Fatal(err)
	}
	if s.Count(`SELECT count(*) FROM outbox_cursor WHERE system = 'another'`) != 0 {
		t.Error("Fit has returned, but the cursor does not fit")
	}
	s.Run(s.Relay(s.Out))
	expectOnly(t, s, unsent)
}

// The tables are restored while the relay leads. The leader must notice it even though it has
// nothing to publish and its token is the one in the restored tables, and publish the events that
// the old history has not published.
func TestRestoreWhileTheRelayRunsIsNoticed(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r := s.Relay(s.Out)
	s.Run(r)
	s.Await(s.Queue, s.AppendNotes("a", 1))
	s.AwaitSettled()
	tx := s.Begin()
	ids := []string{events.NewID(), events.NewID()}
	for n, txid := range []string{"7", "12"} {
		if _, err := tx.Exec(`INSERT INTO outbox (txid, id, aggregatetype, aggregateid, type, payload,
			headers) VALUES ($1, $2, 'note', 'a', 'note.taken', '{}', $3)`,
			txid, ids[n], outboxtest.PlainHeaders); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tx.Exec(`UPDATE outbox_cursor SET system = 'another', a = '10:10:', b = '10:10:',
		txid = '9'`); err != nil {
		t.Fatal(err)
	}
	s.Commit(tx)
	s.Await(s.Queue, ids[1:]) // the first was settled in the old history
	s.ExpectNoMore(s.Queue)
	if r.Stats().Anomalies == 0 {
		t.Error("Stats counts no anomaly")
	}
}
