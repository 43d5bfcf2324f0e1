package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// ErrForeign says that a database belongs to another service.
var ErrForeign = errors.New("the database belongs to another service")

// Owner returns the name of the service that a database belongs to, in whatever schema that keeps
// its tables, and the schema; both are empty while it belongs to none. The name is "?" when it may
// not be read.
func Owner(ctx context.Context, db *sqlx.DB) (name, schema string, err error) {
	var found []struct {
		Schema   string
		Readable bool
	}
	err = db.SelectContext(ctx, &found, `SELECT n.nspname AS schema,
			has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable
		FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
		WHERE c.relname = 'database_owner' AND c.relkind = 'r' ORDER BY n.nspname = current_schema() DESC,
			n.nspname`)
	if err != nil {
		return "", "", fmt.Errorf("look for the owner of the database: %w", err)
	}
	for _, f := range found {
		if !f.Readable {
			return "?", f.Schema, nil
		}
		var names []string
		if err := db.SelectContext(ctx, &names, `SELECT name FROM `+pq.QuoteIdentifier(f.Schema)+
			`.database_owner`); err != nil {
			return "", "", fmt.Errorf("look for the owner of the database: %w", err)
		}
		if len(names) > 0 {
			return names[0], f.Schema, nil
		}
	}
	return "", "", nil
}

// Claim makes a database that of a service, by name, unless it belongs to another already, also in
// another schema: then it returns an error that wraps ErrForeign and names both, and has changed
// nothing. It comes before any migration of the service.
func Claim(ctx context.Context, address, service string) error {
	db, err := Open(address)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if mine, err := isOwner(ctx, db, service); mine || err != nil {
		return err
	}
	err = withLock(ctx, address, []seriesOf{{ownSeries, Migrations()}},
		func(ctx context.Context, db *sqlx.DB) error {
			if mine, err := isOwner(ctx, db, service); mine || err != nil { // another may have been first
				return err
			}
			_, err := db.ExecContext(ctx, `INSERT INTO database_owner (name) VALUES ($1)`, service)
			return err
		})
	if err != nil {
		return fmt.Errorf("claim the database for %s: %w", service, err)
	}
	return nil
}

// isOwner tells whether a database belongs to a service; an error wraps ErrForeign when it is
// another's.
func isOwner(ctx context.Context, db *sqlx.DB, service string) (bool, error) {
	owner, schema, err := Owner(ctx, db)
	if err != nil || owner == "" {
		return false, err
	}
	var here struct{ Database, Schema string }
	if err := db.GetContext(ctx, &here, `SELECT current_database() AS database,
		coalesce(current_schema(), '') AS schema`); err != nil {
		return false, fmt.Errorf("look for the owner of the database: %w", err)
	}
	if owner != service || schema != here.Schema {
		return false, Foreign(service, owner, here.Database, schema)
	}
	return true, nil
}

// Foreign is the error that refuses a database to a service.
func Foreign(service, owner, database, schema string) error {
	return fmt.Errorf("%w: database %s is that of service %s (schema %s) and not of service %s: "+
		"give each a database of its own "+
		"or, if the service was renamed, update the table database_owner", ErrForeign, database, owner,
		schema, service)
}
