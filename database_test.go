package quadrille_test

import (
	"context"
	"errors"
	"io/fs"
	neturl "net/url"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/outbox/cdc"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// refused runs a service, which must end by itself with a mistake that names these.
func refused(t *testing.T, s *quadrille.Service, parts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), quadrilletest.Timeout)
	defer cancel()
	err := s.Run(ctx)
	if !errors.Is(err, quadrille.ErrMisconfigured) {
		t.Errorf("%v is no mistake", err)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}

// step is a migration of the members' line after their own.
func step(name, text string) fstest.MapFS {
	files := fstest.MapFS{name: {Data: []byte("-- +goose Up\n" + text)}}
	for at, file := range table["members"].(fstest.MapFS) {
		files[at] = file
	}
	return files
}

// What waiting cannot heal ends Run with what a person must do, and what it can heal does not.
func TestDatabaseThatNoWaitingHealsEndsRun(t *testing.T) {
	t.Parallel()
	url := func(change func(u *neturl.URL)) func(c *quadrille.Config) {
		return func(c *quadrille.Config) {
			u, err := neturl.Parse(c.Database)
			if err != nil {
				t.Fatal(err)
			}
			change(u)
			c.Database = u.String()
		}
	}
	for name, c := range map[string]struct {
		change func(c *quadrille.Config)
		want   []string
	}{
		"wrong password": {url(func(u *neturl.URL) {
			u.User = neturl.UserPassword(u.User.Username(),
				"hush")
		}), []string{"28P01", "check the user and the password"}},
		"no such user": {url(func(u *neturl.URL) { u.User = neturl.UserPassword("nobody", "hush") }),
			[]string{"28P01", "check the user and the password"}},
		"no such database": {url(func(u *neturl.URL) { u.Path = "/nowhere" }),
			[]string{"3D000", "create the database"}},
		"no TLS": {url(func(u *neturl.URL) { u.RawQuery = "sslmode=require" }),
			[]string{"SSL", "sslmode=disable"}},
		"no such setting": {url(func(u *neturl.URL) { u.RawQuery += "&lock_timeout=soon" }),
			[]string{"lock_timeout", "correct the address"}},
		"syntax": {func(c *quadrille.Config) {
			c.Migrations = map[string]fs.FS{"members": step("002_more.sql", "CREATE TABEL more (n int);")}
		}, []string{"migrate members", "42601", "002_more.sql"}},
		"out of order": {func(c *quadrille.Config) {
			more := map[string]fs.FS{"members": step("003_more.sql", "CREATE TABLE more (n int);")}
			s := members(t, c.Database, c.AMQP, func(c *quadrille.Config) { c.Migrations = more })
			if err := s.Open(t.Context()); err != nil {
				t.Error(err)
			}
			less := step("003_more.sql", "CREATE TABLE more (n int);")
			less["002_less.sql"] = &fstest.MapFile{Data: []byte(
				"-- +goose Up\nCREATE TABLE less (n int);")}
			c.Migrations = map[string]fs.FS{"members": less}
		}, []string{"out-of-order", "version 2", "number above"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, members(t, database(t), webtest.NoBroker, c.change), c.want...)
		})
	}
}

// A database belongs to the service that was first: another neither migrates it nor consumes with
// it, in another schema as little, and a database that an earlier release has used is known by its
// inbox.
func TestDatabaseOfAnotherServiceIsRefused(t *testing.T) {
	t.Parallel()
	url, broker := database(t), webtest.NoBroker
	first := members(t, url, broker)
	if err := first.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	db, err := first.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db.MustExec(`CREATE SCHEMA beside`)
	tables := func() (names []string) {
		if err := db.Select(&names, `SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'
			AND relnamespace IN ('public'::regnamespace, 'beside'::regnamespace)`); err != nil {
			t.Fatal(err)
		}
		return names
	}
	before := len(tables())
	other := func(name, url string) *quadrille.Service {
		return members(t, url, broker, func(c *quadrille.Config) {
			c.Name = name
			c.Migrations = map[string]fs.FS{"other": step("002_other.sql", "CREATE TABLE other (n int);")}
		})
	}
	refused(t, other("mailing", url), "members", "mailing", "belongs to another service")
	refused(t, other("mailing", url+"&search_path=beside"), "members", "mailing", "schema public")
	refused(t, other("members", url+"&search_path=beside"), "members", "schema public")
	if after := tables(); len(after) != before {
		t.Errorf("tables %v", after)
	}
	db.MustExec(`DELETE FROM database_owner; INSERT INTO inbox (consumer, owner, event_id, type)
		VALUES ('members', 'club', gen_random_uuid(), 'user.joined')`)
	refused(t, other("mailing", url), "members", "mailing")
	again := members(t, url, broker)
	if err := again.Open(t.Context()); err != nil {
		t.Error(err)
	}
	if n := count(t, again, "database_owner WHERE name = 'members'"); n != 1 {
		t.Error("it does not belong to its service again")
	}
}

// A pooler with its defaults serves a service, in session mode. Its leader may go to the server
// directly, for a stream.
func TestServiceBehindAPooler(t *testing.T) {
	t.Parallel()
	direct := database(t)
	pooled := servertest.PgBouncer(t, direct, "session")
	for _, leader := range []string{"", direct} {
		broker, _ := servertest.Vhost(t)
		s := members(t, pooled, broker, func(c *quadrille.Config) {
			if leader != "" {
				c.LeaderDatabase, c.Stream = leader, cdc.For(leader, c.Log)
			}
		})
		stop := run(t, s)
		before := 0
		if leader != "" {
			before = 1
		}
		publish(t, s, UserJoined{"1", "ada@example.com"})
		becomes(t, s, before+1, "welcomed")
		stop()
	}
	s := members(t, pooled, webtest.NoBroker, func(c *quadrille.Config) {
		c.LeaderDatabase = direct + "&application_name=leader"
	})
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lead, err := pg.Leader{DB: db, Name: "test"}.Try(t.Context())
	if err != nil || lead == nil {
		t.Fatalf("lead %v, %v", lead, err)
	}
	defer lead.Release()
	var name string
	if err := lead.Conn().GetContext(t.Context(), &name,
		`SELECT current_setting('application_name')`); err != nil || name != "leader" {
		t.Errorf("the leader's session comes through the pooler: %q, %v", name, err)
	}
}

// A pooler that shares its sessions is named.
func TestPoolerThatSharesSessionsIsRefused(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"transaction", "statement"} {
		direct := database(t)
		s := members(t, servertest.PgBouncer(t, direct, mode), webtest.NoBroker)
		refused(t, s, "transaction or statement mode", "pool_mode = session")
		s = members(t, direct, webtest.NoBroker, func(c *quadrille.Config) {
			c.LeaderDatabase = servertest.PgBouncer(t, direct, mode)
		})
		refused(t, s, "LeaderDatabase", "transaction or statement mode", "pool_mode = session")
	}
}

// A database that takes no writes any more makes its service unready, a line in the log says why,
// and when it takes them again all goes on.
func TestReadOnlyDatabaseIsReported(t *testing.T) {
	t.Parallel()
	url := database(t)
	broker, _ := servertest.Vhost(t)
	var log lines
	s := members(t, url, broker, func(c *quadrille.Config) { c.Log = zerolog.New(&log) })
	run(t, s)
	publish(t, s, UserJoined{"1", "ada@example.com"})
	becomes(t, s, 1, "welcomed")
	admin, err := pg.Open(url + "&default_transaction_read_only=off")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	readOnly := func(to string) {
		admin.MustExec(`DO $$
			BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = ` + to +
			`', current_database()); END $$`)
	}
	readOnly("on")
	admin.MustExec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	quadrilletest.WaitFor(t, "it is not ready", func() (bool, string) {
		err := s.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "default_transaction_read_only"), ""
	})
	log.becomes(t, "read-only transaction")
	readOnly("off")
	quadrilletest.WaitFor(t, "it is ready", func() (bool, string) {
		err := s.Ready(t.Context())
		return err == nil, ""
	})
	publish(t, s, UserJoined{"2", "bob@example.com"})
	becomes(t, s, 2, "welcomed")
}
