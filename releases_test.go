package quadrille_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// nextJoined is UserJoined in the next release, which has a new field and writes it to a new
// column.
type nextJoined struct{ ID, Email, Plan string }

func (nextJoined) EventType() string { return "user.joined" }
func (n nextJoined) Subject() string { return n.ID }

// release is a replica of one of two releases of the members, and how many events it has handled.
type release struct {
	*quadrille.Service
	handled atomic.Int64
	payload func(n int) events.Payload
}

func thisRelease(t *testing.T, database, broker string) *release {
	t.Helper()
	r := &release{payload: func(n int) events.Payload {
		return UserJoined{ID: fmt.Sprint(n), Email: "a"}
	}}
	r.Service = members(t, database, broker, func(c *quadrille.Config) {
		c.Handlers = []consumer.Handler{consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
			e events.Of[UserJoined]) error {
			r.handled.Add(1)
			return welcome(ctx, tx, e)
		})}
	})
	return r
}

// nextMigration is the migration of the next release.
var nextMigration = step("002_plan.sql",
	"ALTER TABLE welcomed ADD COLUMN plan text NOT NULL DEFAULT 'free';")

func nextRelease(t *testing.T, database, broker string) *release {
	t.Helper()
	r := &release{payload: func(n int) events.Payload {
		return nextJoined{ID: fmt.Sprint(n), Email: "a", Plan: "paid"}
	}}
	r.Service = members(t, database, broker, func(c *quadrille.Config) {
		c.Migrations = map[string]fs.FS{"members": nextMigration}
		c.Publishes = []events.Payload{nextJoined{}}
		c.Handlers = []consumer.Handler{consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
			e events.Of[nextJoined]) error {
			r.handled.Add(1)
			_, err := tx.ExecContext(ctx, `INSERT INTO welcomed VALUES ($1, $2, $3)`, e.ID, e.Data.Email,
				e.Data.Plan)
			return err
		})}
	})
	return r
}

// Replicas of a release and of the next one share a database and a queue: first while the next one
// is rolled out, and then while it is rolled back, when the old one also starts on a database that
// the next one has migrated.
func TestReleasesRunSideBySide(t *testing.T) {
	t.Parallel()
	database := database(t)
	broker, _ := servertest.Vhost(t)
	published := 0
	traffic := func(what string, replicas ...*release) {
		t.Helper()
		before := make([]int64, len(replicas))
		for i, r := range replicas {
			before[i] = r.handled.Load()
		}
		quadrilletest.WaitFor(t, what+": each replica handles events", func() (bool, string) {
			for _, r := range replicas {
				publish(t, r.Service, r.payload(published), r.payload(published+1))
				published += 2
			}
			seen, all := "", true
			for i, r := range replicas {
				n := r.handled.Load() - before[i]
				all, seen = all && n > 0, seen+fmt.Sprint(n, " ")
			}
			return all, seen
		})
		quadrilletest.WaitFor(t, what+": every event is handled", func() (bool, string) {
			n := count(t, replicas[0].Service, "welcomed")
			return n >= published, fmt.Sprint(n, " of ", published)
		})
	}
	old := thisRelease(t, database, broker)
	stopOld := run(t, old.Service)
	traffic("before", old)
	next := nextRelease(t, database, broker)
	stopNext := run(t, next.Service)
	traffic("rolled out", old, next)
	stopOld()
	traffic("done", next)
	old = thisRelease(t, database, broker)
	stopOld = run(t, old.Service)
	traffic("rolled back", next, old)
	stopNext()
	traffic("undone", old)
	if n := count(t, old.Service, "welcomed"); n != published {
		t.Errorf("%d effects of %d events", n, published)
	}
	if n := count(t, old.Service, "pending"); n != 0 {
		t.Errorf("%d events wait or are parked", n)
	}
}

// A service with Migrate "check" writes nothing and names what is missing. What psql makes of the
// script is the same as what the service makes.
func TestMigrationsAreCheckedOrLeft(t *testing.T) {
	t.Parallel()
	byScript, byItself := database(t), database(t)
	open := func(database, mode string, files fs.FS) *quadrille.Service {
		return members(t, database, webtest.NoBroker, func(c *quadrille.Config) {
			c.Migrate, c.Migrations = mode, map[string]fs.FS{"members": files}
			// It has a migration that runs in no transaction.
			c.Components = []quadrille.Component{&idempotency.Keys{}}
		})
	}
	this, next := table["members"], fs.FS(nextMigration)
	s := open(byScript, "check", this)
	refused(t, s, "postgres 001_leaders.sql, ", "outbox 001_outbox.sql", "members 001_members.sql",
		"idempotency 002_created.sql", "Service.Migrate")
	list, err := s.Migrations(t.Context())
	if err != nil || !slices.ContainsFunc(list, func(m quadrille.Migration) bool {
		return m.Series == "members" && m.File == "001_members.sql" && m.Version == 1 &&
			m.Applied.IsZero()
	}) {
		t.Errorf("%+v, %v", list, err)
	}
	if shape := shapeOf(t, byScript); len(shape) != 0 {
		t.Errorf("the check has made %v", shape)
	}
	script, err := s.MigrationScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it does nothing, as after an interruption
		psql(t, byScript, script)
		if script, err = s.MigrationScript(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(byScript, "check", this).Open(t.Context()); err != nil {
		t.Errorf("after the script: %v", err)
	}
	if err := open(byItself, "auto", this).Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if one, other := shapeOf(t, byScript), shapeOf(t, byItself); !slices.Equal(one, other) {
		t.Errorf("psql has made\n%s\nand the service\n%s", strings.Join(one, "\n"),
			strings.Join(other, "\n"))
	}

	if err := open(byItself, "off", next).Open(t.Context()); err != nil {
		t.Errorf("without a look at migrations: %v", err)
	}
	err = open(byItself, "check", next).Open(t.Context())
	if !errors.Is(err, quadrille.ErrNotMigrated) || !strings.Contains(err.Error(),
		"lacks migrations: members 002_plan.sql: ") {
		t.Errorf("with a pending migration: %v", err)
	}
	if err := open(byItself, "check", next).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := open(byItself, "check", next).Open(t.Context()); err != nil {
		t.Errorf("when it is migrated: %v", err)
	}
	s = open(byItself, "check", this)
	if err := s.Open(t.Context()); err != nil {
		t.Errorf("the earlier release: %v", err)
	}
	list, err = s.Migrations(t.Context())
	if err != nil || !slices.ContainsFunc(list, func(m quadrille.Migration) bool {
		return m.Series == "members" && m.Version == 2 && m.File == "" && !m.Applied.IsZero()
	}) {
		t.Errorf("what the next release has applied: %+v, %v", list, err)
	}
}

// shapeOf returns the columns and indexes of a database, and what it says about its migrations.
func shapeOf(t *testing.T, database string) (shape []string) {
	t.Helper()
	db, err := sqlx.Open("postgres", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test
	if err := db.Select(&shape, `
		SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' '
			|| coalesce(column_default, '') FROM information_schema.columns WHERE table_schema = 'public'
		UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
		UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
			WHERE connamespace = 'public'::regnamespace ORDER BY 1`); err != nil {
		t.Fatal(err)
	}
	return shape
}

func psql(t *testing.T, database, script string) {
	t.Helper()
	programs, err := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
	if err != nil || len(programs) == 0 {
		t.Fatalf("no psql: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), programs[0], "--no-psqlrc", "--quiet", database)
	cmd.Stdin = strings.NewReader(script)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil || output.Len() > 0 {
		t.Fatalf("psql: %v\n%s", err, output.String())
	}
}
