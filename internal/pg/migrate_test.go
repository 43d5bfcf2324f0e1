package pg_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

func files(migrations ...string) fstest.MapFS {
	all := fstest.MapFS{}
	for i, text := range migrations {
		all[string(rune('1'+i))+"_step.sql"] = &fstest.MapFile{Data: []byte("-- +goose " + text)}
	}
	return all
}

const (
	tableStep = "Up\nCREATE TABLE big (n int); INSERT INTO big SELECT generate_series(1, 1000);"
	indexStep = "NO TRANSACTION\n-- +goose Up\nCREATE UNIQUE INDEX CONCURRENTLY big_n ON big (n);"
)

// Replicas that start at the same time, while one of them builds an index concurrently, all
// succeed.
func TestReplicasBuildAnIndexConcurrently(t *testing.T) {
	t.Parallel()
	raw, db := newDatabase(t)
	must(t, pg.Migrate(t.Context(), raw, "big", files(tableStep)))
	// The build waits for this transaction, so that all replicas arrive meanwhile.
	reader, err := db.BeginTxx(t.Context(), nil)
	must(t, err)
	exec(t, reader, `SET LOCAL idle_in_transaction_session_timeout = 0`)
	count(t, reader, `SELECT count(*) FROM big`)
	exec(t, reader, `DELETE FROM big WHERE n = 1`)
	const replicas = 3
	done := make(chan error, replicas)
	for range replicas {
		go func() { done <- pg.Migrate(t.Context(), raw, "big", files(tableStep, indexStep)) }()
	}
	waitFor(t, "one replica builds and the others poll for the lock", func() bool {
		return count(t, db, `SELECT count(*) FROM pg_stat_progress_create_index`) == 1 &&
			count(t, db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
				AND query LIKE '%pg_try_advisory_lock%' AND pid <> pg_backend_pid()`) >= replicas
	})
	must(t, reader.Commit())
	for range replicas {
		must(t, <-done)
	}
	if n := count(t, db, `SELECT count(*) FROM pg_index WHERE indexrelid = 'big_n'::regclass
		AND indisvalid`); n != 1 {
		t.Error("the index is invalid")
	}
}

// An index that is built concurrently may wait for other transactions for longer than the lock
// time-out of migrations.
func TestIndexBuildWaitsForOtherTransactions(t *testing.T) {
	t.Parallel()
	raw, db := newDatabase(t)
	must(t, pg.Migrate(t.Context(), raw, "big", files(tableStep)))
	reader, err := db.BeginTxx(t.Context(), nil)
	must(t, err)
	exec(t, reader, `SET LOCAL idle_in_transaction_session_timeout = 0; DELETE FROM big WHERE n = 1`)
	done := make(chan error, 1)
	go func() { done <- pg.Migrate(t.Context(), raw, "big", files(tableStep, indexStep)) }()
	waitFor(t, "it has waited for longer than the lock time-out", func() bool {
		return count(t, db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND query LIKE '%INDEX CONCURRENTLY big_n%'
			AND wait_event_type = 'Lock' AND query_start < now() - interval '5.5 seconds'
				AND pid <> pg_backend_pid()`) == 1
	})
	must(t, reader.Commit())
	must(t, <-done)
}

// The invalid index of a failed attempt is dropped and built again. Invalid indexes that the
// migration does not name stay.
func TestInvalidIndexIsRebuilt(t *testing.T) {
	t.Parallel()
	raw, db := newDatabase(t)
	must(t, pg.Migrate(t.Context(), raw, "big", files(tableStep)))
	exec(t, db, `INSERT INTO big VALUES (7)`) // the index is unique
	err := pg.Migrate(t.Context(), raw, "big", files(tableStep, indexStep))
	if err == nil || pg.WaitingHelps(err) ||
		!strings.Contains(pg.Remedy(err), "2_step.sql") {
		t.Errorf("two rows with one key: %v; %s", err, pg.Remedy(err))
	}
	if _, err := db.Exec(`CREATE UNIQUE INDEX CONCURRENTLY unrelated ON big (n)`); err == nil {
		t.Error("a unique index was built on duplicate rows")
	}
	if n := count(t, db, `SELECT count(*) FROM pg_index WHERE NOT indisvalid`); n != 2 {
		t.Fatalf("%d invalid indexes", n)
	}
	exec(t, db, `DELETE FROM big WHERE n = 7`)
	must(t, pg.Migrate(t.Context(), raw, "big", files(tableStep, indexStep)))
	if n := count(t, db, `SELECT count(*) FROM pg_index WHERE indexrelid = 'big_n'::regclass
		AND indisvalid`); n != 1 {
		t.Error("the index is invalid")
	}
	if n := count(t, db, `SELECT count(*) FROM pg_index WHERE indexrelid = 'unrelated'::regclass
		AND NOT indisvalid`); n != 1 {
		t.Error("an index that the migration does not name was dropped")
	}
}

// A faulty migration fails with a remedy that names its file, and waiting does not help.
func TestErrorNamesTheFaultyMigration(t *testing.T) {
	t.Parallel()
	raw, _ := newDatabase(t)
	ordered := files(tableStep, "Up\nCREATE TABLE late (n int);", "Up\nCREATE TABLE later (n int);")
	delete(ordered, "2_step.sql")
	must(t, pg.Migrate(t.Context(), raw, "ordered", ordered))
	for name, c := range map[string]struct {
		files  fstest.MapFS
		remedy string
	}{
		"ordered": {files(tableStep, "Up\nCREATE TABLE late (n int);", "Up\nCREATE TABLE later (n int);"),
			"number"},
		"syntax": {files("Up\nCREATE TABEL x (n int);"), "1_step.sql"},
		"there":  {files("Up\nCREATE TABLE big (n int);"), "1_step.sql"},
		"empty":  {fstest.MapFS{"1_step.sql": {Data: []byte("CREATE TABLE x (n int);")}}, "correct"},
	} {
		err := pg.Migrate(t.Context(), raw, name, c.files)
		if err == nil || pg.WaitingHelps(err) || !strings.Contains(pg.Remedy(err), c.remedy) {
			t.Errorf("%s: %v; %s", name, err, pg.Remedy(err))
		}
	}
}

// A database belongs to the first service that claims it, in all its schemas.
func TestDatabaseBelongsToOneService(t *testing.T) {
	t.Parallel()
	raw := servertest.Database(t, "empty", func(context.Context, string) error { return nil })
	db := pool(t, raw)
	const services = 4
	claims := make(chan error, services)
	for i := range services {
		go func() { claims <- pg.Claim(t.Context(), raw, string(rune('a'+i))) }()
	}
	refused := 0
	for range services {
		if err := <-claims; errors.Is(err, pg.ErrForeign) {
			refused++
		} else {
			must(t, err)
		}
	}
	if refused != services-1 {
		t.Errorf("%d of %d services are refused", refused, services)
	}
	owner, schema, err := pg.Owner(t.Context(), db)
	must(t, err)
	if schema != "public" {
		t.Errorf("it belongs to %q in %q", owner, schema)
	}
	must(t, pg.Claim(t.Context(), raw, owner))
	exec(t, db, `CREATE SCHEMA other`)
	for _, name := range []string{"z", owner} {
		err := pg.Claim(t.Context(), raw+"&search_path=other", name)
		if !errors.Is(err, pg.ErrForeign) || pg.WaitingHelps(err) ||
			!strings.Contains(err.Error(), "service "+owner+" (schema public)") {
			t.Errorf("%s in another schema: %v", name, err)
		}
	}
	if n := count(t, db,
		`SELECT count(*) FROM pg_class WHERE relnamespace = 'other'::regnamespace`); n != 0 {
		t.Errorf("%d tables in the other schema", n)
	}
	exec(t, db, `UPDATE database_owner SET name = 'z'`) // renamed by a person
	must(t, pg.Claim(t.Context(), raw, "z"))
}

// A read-only database is not alive. When it accepts writes again it is alive, also for sessions
// that were opened while it was read-only.
func TestReadOnlyDatabaseIsNotAlive(t *testing.T) {
	t.Parallel()
	raw, _ := newDatabase(t)
	admin := pool(t, raw+"&default_transaction_read_only=off")
	set := func(to string) {
		exec(t, admin, `DO $$
			BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = `+to+
			`', current_database()); END $$`)
	}
	set("on")
	db := pool(t, raw)
	if err := pg.Alive(t.Context(), db); err == nil ||
		!strings.Contains(err.Error(), "default_transaction_read_only") || !pg.WaitingHelps(err) {
		t.Errorf("alive: %v", err)
	}
	_, err := db.Exec(`CREATE TABLE x ()`)
	if pg.ClassOf(err) != pg.Lost || !pg.DatabaseFault(err) {
		t.Errorf("class %d of %v", pg.ClassOf(err), err)
	}
	set("off")
	_, _ = db.Exec(`CREATE TABLE x ()`) // this may use an old session once
	exec(t, db, `CREATE TABLE y ()`)
	must(t, pg.Alive(t.Context(), db))
}

// A replica polls for the lock of migrations without a snapshot. When it gives up, waiting helps.
func TestLockOfMigrationsIsPolled(t *testing.T) {
	t.Parallel()
	raw, db := newDatabase(t)
	held, err := db.Connx(t.Context())
	must(t, err)
	defer func() { _ = held.Close() }()
	exec(t, held, `SELECT pg_advisory_lock(hashtextextended('migrate', 0))`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := pg.Migrate(ctx, raw, "big", files(tableStep)); !errors.Is(err,
		context.DeadlineExceeded) || !pg.WaitingHelps(err) {
		t.Errorf("error %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- pg.Migrate(t.Context(), raw, "big", files(tableStep)) }()
	waitFor(t, "it polls for the lock", func() bool {
		return count(t, db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND query LIKE '%pg_try_advisory_lock%' AND pid <> pg_backend_pid()
			AND backend_xmin IS NULL AND state = 'idle'`) > 0
	})
	exec(t, held, `SELECT pg_advisory_unlock_all()`)
	must(t, <-done)
}

// The error of a database that cannot be changed says once what was tried, then what the server has
// answered.
func TestErrorOfPreparingIsWrappedOnce(t *testing.T) {
	t.Parallel()
	raw := servertest.Database(t, "empty", func(context.Context, string) error { return nil })
	raw += "&role=pg_monitor" // which may create nothing
	for want, err := range map[string]error{
		"claim the database for here: pq: permission denied": pg.Claim(t.Context(), raw, "here"),
		"migrate big: pq: permission denied": pg.Migrate(t.Context(), raw, "big",
			files(tableStep)),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want %q:\n%v", want, err)
		}
	}
}
