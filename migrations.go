package quadrille

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox"
)

// ErrNotMigrated means that the database lacks migrations, and that Config.Migrate is "check". The
// error names them.
var ErrNotMigrated = pg.ErrNotMigrated

// Migration is one migration of a service's database.
type Migration struct {
	Series  string // postgres, outbox and inbox are the kit's; others are the service's own
	Version int64
	File    string    // empty if another release has applied it and this one does not have it
	SQL     string    // the text of the file
	Applied time.Time // zero while it is pending
}

// checkMigrate returns an error for an unknown value of Migrate.
func (c Config) checkMigrate() error {
	switch c.Migrate {
	case "", "auto", "check", "off":
		return nil
	}
	return fmt.Errorf("Migrate: %.40q is not auto, check or off", c.Migrate)
}

// series returns the migrations by series, without those of package internal/pg, and the names in
// the order in which they are applied.
func (c Config) series() (files map[string]fs.FS, order []string) {
	files = maps.Clone(c.Migrations)
	if files == nil {
		files = map[string]fs.FS{}
	}
	files["outbox"], files["inbox"] = outbox.Migrations(), inbox.Migrations()
	for _, part := range c.Components {
		maps.Copy(files, part.Migrations())
	}
	return files, slices.Sorted(maps.Keys(files))
}

// migrate does with the migrations of a database what Migrate says. It refuses a database that is
// another service's in any case.
func (c Config) migrate(ctx context.Context, db *sqlx.DB) error {
	switch c.Migrate {
	case "off":
		_, err := pg.IsOwner(ctx, db, c.Name)
		return err
	case "check":
		return c.checkMigrated(ctx, db)
	}
	if err := c.claim(ctx, db); err != nil {
		return err
	}
	files, order := c.series()
	for _, one := range order {
		if err := pg.Migrate(ctx, c.Database, one, files[one]); err != nil {
			return err
		}
	}
	return nil
}

// checkMigrated returns ErrNotMigrated with what is pending.
func (c Config) checkMigrated(ctx context.Context, db *sqlx.DB) error {
	owned, err := pg.IsOwner(ctx, db, c.Name)
	if err != nil {
		return err
	}
	list, err := c.migrations(ctx, db)
	if err != nil {
		return err
	}
	var pending []string
	for _, m := range list {
		if m.Applied.IsZero() {
			pending = append(pending, m.Line+" "+m.File)
		}
	}
	switch {
	case len(pending) > 0:
		return fmt.Errorf("%w: %s", ErrNotMigrated, strings.Join(pending, ", "))
	case !owned:
		return fmt.Errorf("%w: the row of %s in the table database_owner", ErrNotMigrated, c.Name)
	}
	return nil
}

// migrations returns all migrations in the order in which they are applied.
func (c Config) migrations(ctx context.Context, db *sqlx.DB) ([]pg.Migration, error) {
	list, err := pg.Status(ctx, db, pg.OwnLine, pg.Migrations())
	files, order := c.series()
	for _, one := range order {
		if err != nil {
			return nil, err
		}
		var more []pg.Migration
		more, err = pg.Status(ctx, db, one, files[one])
		list = append(list, more...)
	}
	return list, err
}

// Migrations returns the migrations of the service's database in the order in which they are
// applied, pending ones included. It writes nothing and does not open the service.
func (s *Service) Migrations(ctx context.Context) ([]Migration, error) {
	var list []Migration
	err := s.withDatabase(func(db *sqlx.DB) error {
		found, err := s.config.migrations(ctx, db)
		for _, m := range found {
			list = append(list, Migration{m.Line, m.Version, m.File, m.SQL, m.Applied})
		}
		return err
	})
	return list, err
}

// Migrate applies the pending migrations, whatever Config.Migrate says, and does not open the
// service. A deployment that does so before it starts the new release sets Config.Migrate to
// "check", and its services then need no right to change tables.
func (s *Service) Migrate(ctx context.Context) error {
	return s.withDatabase(func(db *sqlx.DB) error {
		c := s.config
		c.Migrate = ""
		return c.migrate(ctx, db)
	})
}

// MigrationScript returns the pending migrations as SQL for psql, which also records them, for
// a database that only its administrator may change.
func (s *Service) MigrationScript(ctx context.Context) (string, error) {
	script := ""
	err := s.withDatabase(func(db *sqlx.DB) error {
		list, err := s.config.migrations(ctx, db)
		script = pg.Script(s.config.Name, list)
		return err
	})
	return script, err
}

// withDatabase calls f with a pool of the database.
func (s *Service) withDatabase(f func(db *sqlx.DB) error) error {
	db, sessions, _, err := s.config.connect()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMisconfigured, err)
	}
	p := &parts{db: db, sessions: sessions, given: s.config.DB != nil}
	return errors.Join(f(db), p.close())
}
