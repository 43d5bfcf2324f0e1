package quadrille

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox"
)

// connect makes the pool of the database and that of the sessions that leaders keep, which are one
// unless LeaderDatabase is set. It also returns the address of the latter in a form that every
// driver reads. It does not connect yet.
func (c Config) connect() (db, sessions *sqlx.DB, address string, err error) {
	if address, err = pg.Address(c.Database); err != nil {
		return nil, nil, "", err
	}
	if db = c.DB; db == nil {
		if db, err = pg.Open(address); err != nil {
			return nil, nil, "", err
		}
	}
	if c.LeaderDatabase == "" {
		return db, db, address, nil
	}
	if address, err = pg.Address(c.LeaderDatabase); err == nil {
		sessions, err = pg.Open(address)
	}
	if err != nil {
		if c.DB == nil {
			_ = db.Close()
		}
		return nil, nil, "", fmt.Errorf("LeaderDatabase: %w", err)
	}
	pg.LeadThrough(db, sessions)
	return db, sessions, address, nil
}

// prepare migrates a database, or checks that it is migrated. It refuses one that may lose what it
// has committed, that is another service's, or whose sessions are not its own.
func (c Config) prepare(ctx context.Context, p *parts) error {
	if err := pg.CheckDurable(ctx, p.db); err != nil {
		return err
	}
	if err := checkSessions(ctx, p); err != nil {
		return err
	}
	if err := c.migrate(ctx, p.db); err != nil {
		return err
	}
	for _, part := range c.Components {
		if err := part.Open(ctx, Host{Name: c.Name, DB: p.db, Log: c.Log}); err != nil {
			return err
		}
	}
	return outbox.Fit(ctx, p.db)
}

// checkSessions refuses a pooler that shares sessions, and a LeaderDatabase that is another
// database.
func checkSessions(ctx context.Context, p *parts) error {
	if err := pg.CheckSessions(ctx, p.db); err != nil || p.sessions == p.db {
		return err
	}
	if err := pg.CheckSessions(ctx, p.sessions); err != nil {
		return fmt.Errorf("LeaderDatabase: %w", err)
	}
	var ids [2]string
	for i, db := range []*sqlx.DB{p.db, p.sessions} {
		if err := db.GetContext(ctx, &ids[i], `SELECT system_identifier || ' ' || current_database()
			FROM pg_control_system()`); err != nil {
			return fmt.Errorf("compare the addresses of the database: %w", err)
		}
	}
	if ids[0] != ids[1] {
		return errors.New("LeaderDatabase is the address of another database than Database")
	}
	return nil
}

// claim makes the database the service's own. One that an earlier release has migrated has no owner
// yet, but its tables show which service has used them.
func (c Config) claim(ctx context.Context, db *sqlx.DB) error {
	if owner, _, err := pg.Owner(ctx, db); err != nil {
		return err
	} else if owner == "" {
		if err := c.checkUse(ctx, db); err != nil {
			return err
		}
	}
	return pg.Claim(ctx, c.Database, c.Name)
}

// checkUse refuses a database whose inbox another service has written.
func (c Config) checkUse(ctx context.Context, db *sqlx.DB) error {
	var here struct {
		Database, Schema string
		Used             bool
	}
	err := db.GetContext(ctx, &here, `SELECT current_database() AS database, coalesce(current_schema(),
		'') AS schema,
		to_regclass('inbox') IS NOT NULL AS used`)
	if err != nil || !here.Used {
		return err
	}
	other, err := inbox.OtherThan(ctx, db, c.Name)
	if err != nil || other == "" {
		return err
	}
	return pg.Foreign(c.Name, other, here.Database, here.Schema)
}
