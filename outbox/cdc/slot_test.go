package cdc_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/cdc"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// The source is changed again and again while hostile writers write.
func TestSwitchOfSourceUnderLoad(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	first, second := newRelay(t, s, outbox.FromWindow), newRelay(t, s, outbox.FromWindow)
	s.Run(first)
	s.Run(second)
	stop := startWriters(t, s, 6)
	for n := range int64(6) {
		source := []outbox.SourceName{outbox.FromStream, outbox.FromWindow}[n%2]
		useSource(t, s, source)
		awaitLeader(s, source, first, second)
		awaitCommitted(s, 300*(n+1))
	}
	stop()
	t.Logf("%d events were delivered more than once", checkDelivered(t, s))
	s.WaitFor("the slot is dropped", func() bool {
		return s.Count(
			`SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`) == 0
	})
}

// The hand-over to the stream is exact: each event is published once, whether it was committed
// before or after.
func TestHandOverToTheStreamIsExact(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r := newRelay(t, s, outbox.FromWindow)
	s.Run(r)
	stop := startWriters(t, s, 6)
	awaitCommitted(s, 300)
	useSource(t, s, outbox.FromStream)
	awaitLeader(s, outbox.FromStream, r)
	awaitCommitted(s, 1500)
	stop()
	checkDelivered(t, s)
	checkPublishedOnce(t, s, r)
}

// privateEnv returns an Env on a database server of its own, with these settings.
func privateEnv(t *testing.T, settings ...string) (*outboxtest.Env, *localrun.Servers) {
	t.Helper()
	servers := servertest.PrivatePostgres(t)
	if err := pg.Migrate(t.Context(), servers.PostgresURL, "outbox",
		outbox.Migrations()); err != nil {
		t.Fatal(err)
	}
	s := outboxtest.NewOn(t, servers.PostgresURL)
	for _, setting := range settings {
		s.Exec(`ALTER SYSTEM SET ` + setting)
	}
	if len(settings) > 0 {
		if err := servers.RestartPostgres(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.WaitFor("the server is back", func() bool { return s.DB.Ping() == nil })
	}
	return s, servers
}

// The server has removed the log of a slot. The window takes over where the stream was, and then
// the relay creates a new slot.
func TestLostSlotLosesNothing(t *testing.T) {
	t.Parallel()
	s, _ := privateEnv(t, `max_slot_wal_keep_size = '1MB'`, `min_wal_size = '32MB'`,
		`max_wal_size = '32MB'`)
	r := newRelay(t, s, outbox.FromStream)
	stop := s.Run(r)
	awaitLeader(s, outbox.FromStream, r)
	s.Await(s.Queue, s.AppendNotes("a", 1))
	stop()
	missed := s.AppendNotes("a", 2, 3)
	s.Exec(`CREATE TABLE noise (t text)`)
	s.WaitFor("the slot is lost", func() bool {
		s.Exec(`INSERT INTO noise SELECT repeat(md5(g::text), 100) FROM generate_series(1, 10000) g`)
		s.Exec(`CHECKPOINT`)
		return s.Count(`SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'`) == 1
	})
	if state, err := cdcSource(t, s).State(t.Context()); err != nil || state.State != "lost" {
		t.Errorf("state %+v, error %v", state, err)
	}
	s.Run(r)
	s.Await(s.Queue, missed)
	awaitLeader(s, outbox.FromStream, r) // from a new slot
	s.Await(s.Queue, s.AppendNotes("a", 4))
	if n := s.Count(
		`SELECT count(*) FROM pg_replication_slots WHERE wal_status <> 'lost' AND active`); n != 1 {
		t.Errorf("%d slots are active, want 1", n)
	}
}

// When a setting or a privilege is missing, the error names the statement that adds it, and the
// relay uses the window.
func TestWithoutLogicalReplicationTheWindowRelays(t *testing.T) {
	t.Parallel()
	s, servers := privateEnv(t, `wal_level = replica`)
	_, _, err := cdc.Source{URL: s.Database, DB: s.DB}.Begin(t.Context())
	if !errors.Is(err, cdc.ErrNotLogical) ||
		!strings.Contains(err.Error(), "ALTER SYSTEM SET wal_level = 'logical'") {
		t.Errorf("error %v", err)
	}
	r := newRelay(t, s, outbox.FromStream)
	s.Run(r)
	s.Await(s.Queue, s.AppendNotes("a", 1))
	if r.Stats().Streaming {
		t.Error("the relay streams without logical replication")
	}
	s.Exec(`ALTER SYSTEM SET wal_level = logical`)
	if err := servers.RestartPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.WaitFor("the server is back", func() bool { return s.DB.Ping() == nil })
	s.Exec(`CREATE ROLE plain LOGIN PASSWORD 'x'`)
	s.Exec(`GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain`)
	plain := strings.Replace(s.Database,
		s.Database[strings.Index(s.Database, "//")+2:strings.Index(s.Database, "@")], "plain:x", 1)
	_, _, err = cdc.Source{URL: plain, DB: outboxtest.OpenDB(t, plain)}.Begin(t.Context())
	if !errors.Is(err, cdc.ErrNotLogical) ||
		!strings.Contains(err.Error(), `ALTER ROLE "plain" REPLICATION`) {
		t.Errorf("error %v", err)
	}
	awaitLeader(s, outbox.FromStream, r)
	s.Await(s.Queue, s.AppendNotes("a", 2))
}

// The stream's session must never count as a synchronous standby: commits would hang when the relay
// stops. Begin refuses it, and the relay leaves the stream when the setting changes later; the
// error names the statement that corrects the setting.
func TestStreamIsNoSynchronousStandby(t *testing.T) {
	t.Parallel()
	s, _ := privateEnv(t)
	s = s.WithDatabase(t, s.Database+"&synchronous_commit=local") // there is no other standby
	r := newRelay(t, s, outbox.FromStream)
	stop := s.Run(r)
	awaitLeader(s, outbox.FromStream, r)
	standbys := func(names string) {
		s.Exec(`ALTER SYSTEM SET synchronous_standby_names = '` + names + `'`)
		s.Exec(`SELECT pg_reload_conf()`)
	}
	const counted = `SELECT count(*) FROM pg_stat_replication WHERE sync_priority > 0`
	standbys("ANY 1 (*)")
	s.WaitFor("the stream is left", func() bool {
		return !r.Stats().Streaming &&
			s.Count(counted) == 0
	})
	s.Await(s.Queue, s.AppendNotes("a", 1))
	_, _, err := cdcSource(t, s).Begin(t.Context())
	if !errors.Is(err, cdc.ErrStandby) ||
		!strings.Contains(err.Error(),
			"ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby1)'") {
		t.Errorf("error %v", err)
	}
	stop()
	if n := s.Count(`SELECT count(*) FROM pg_replication_slots`); n != 0 {
		t.Errorf("%d slots are left, for which the server keeps its log", n)
	}
	standbys("FIRST 1 (another)")
	s.WaitFor("the setting is in effect", func() bool {
		return s.Count(`SELECT count(*) FROM pg_settings
		WHERE setting LIKE '%another%'`) == 1
	})
	s.Run(r)
	awaitLeader(s, outbox.FromStream, r)
	s.Await(s.Queue, s.AppendNotes("a", 2))
	if n := s.Count(counted); n != 0 {
		t.Error("the stream counts as a synchronous standby")
	}
	standbys("another, " + slotOf(t, s))
	s.WaitFor("the stream is left", func() bool {
		return !r.Stats().Streaming &&
			s.Count(counted) == 0
	})
}

func slotOf(t *testing.T, s *outboxtest.Env) (name string) {
	t.Helper()
	if err := s.DB.Get(&name, `SELECT slot_name FROM pg_replication_slots`); err != nil {
		t.Fatal(err)
	}
	return name
}

// The server must be able to remove its log while the outbox is idle and other databases write.
func TestIdleOutboxRetainsNoWAL(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r := newRelay(t, s, outbox.FromStream)
	s.Run(r)
	awaitLeader(s, outbox.FromStream, r)
	s.Await(s.Queue, s.AppendNotes("a", 1))
	other := outboxtest.OpenDB(t, servertest.Database(t, "empty",
		func(context.Context, string) error { return nil }))
	if _, err := other.Exec(`CREATE TABLE noise AS SELECT repeat(md5(g::text), 10) AS t
		FROM generate_series(1, 30000) g`); err != nil {
		t.Fatal(err)
	}
	end := s.Count(`SELECT (pg_current_wal_lsn() - '0/0')::bigint`)
	s.WaitFor("the stream confirms the log of the other database", func() bool {
		return s.Count(`SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots
			WHERE database = current_database()`) >= end
	})
	state, err := cdcSource(t, s).State(t.Context())
	if err != nil || state.State != "reserved" || !state.Active ||
		!strings.HasPrefix(state.Name, "quadrille_outbox_") {
		t.Errorf("state %+v, error %v", state, err)
	}
}

// A relay without a source uses the window even if the stream is wanted, and goes on where another
// replica has streamed.
func TestReplicaWithoutASourceUsesTheWindow(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	able := newRelay(t, s, outbox.FromStream)
	stop := s.Run(able)
	awaitLeader(s, outbox.FromStream, able)
	s.Await(s.Queue, s.AppendNotes("a", 1))
	stop()
	published := s.AppendNotes("a", 2)
	s.Run(s.Relay(outbox.New(outboxtest.OpenDB(t, s.Database))))
	s.Await(s.Queue, published)
	u, err := s.Out.SourceInUse(t.Context())
	if err != nil || u.Wanted != outbox.FromStream || u.Source != outbox.FromWindow || u.Token != 2 {
		t.Errorf("source in use %+v, error %v", u, err)
	}
	if err := s.Out.UseSource(t.Context(), "kafka"); err == nil {
		t.Error("UseSource accepts an unknown source")
	}
}

// Debezium's outbox event router expects these columns, with these types, and the payload as it was
// appended. See docs/patterns.md for its configuration.
func TestDebeziumContract(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	var columns []struct{ Name, Type, Nullable string }
	err := s.DB.Select(&columns, `SELECT column_name AS name, data_type AS type,
		is_nullable AS nullable FROM information_schema.columns
		WHERE table_name = 'outbox' AND column_name IN ('id', 'aggregatetype', 'aggregateid', 'type',
			'payload')`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"id": "uuid", "aggregatetype": "text", "aggregateid": "text",
		"type": "text", "payload": "json"}
	for _, c := range columns {
		if want[c.Name] != c.Type || c.Nullable != "NO" {
			t.Errorf("column %+v, want %s", c, want[c.Name])
		}
		delete(want, c.Name)
	}
	if len(want) > 0 {
		t.Errorf("missing columns: %v", want)
	}
	stream, _, err := cdc.Source{URL: s.Database, DB: s.DB, Log: zerolog.Nop()}.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cdcSource(t, s) // drops the slot in the end
	defer stream.Close()
	id := s.AppendNotes("a", 7)[0]
	var rows []outbox.Row
	s.WaitFor("the row is delivered", func() bool {
		found, _, err := stream.Next(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, found...)
		return len(rows) == 1
	})
	r := rows[0]
	if r.ID != id || r.AggregateID != "a" || r.Type != "note.taken" ||
		r.Payload != `{"on":"a","n":7}` || !strings.Contains(r.Headers, `"correlationid"`) {
		t.Errorf("row %+v", r)
	}
	if n := s.Count(`SELECT count(*) FROM outbox WHERE aggregatetype = 'note' AND id = $1`,
		id); n != 1 {
		t.Error("the column aggregatetype is not the noun of the event type")
	}
}
