package pg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// ErrForeign means that a database belongs to another service.
var ErrForeign = errors.New("the database belongs to another service")

// Owner returns the name of the service that owns a database, and the schema that contains its
// tables. It searches all schemas. Both results are empty while no service owns the database; the
// name is "?" if the role has no privilege to read it.
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

// Claim records the named service as the owner of a database. If another service, or the same one
// in another schema, owns it already, Claim changes nothing and returns an error that wraps
// ErrForeign and names both. A service calls it before its migrations.
func Claim(ctx context.Context, address, service string) error {
	db, err := Open(address)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if owned, err := IsOwner(ctx, db, service); owned || err != nil {
		return err
	}
	err = withLock(ctx, address, []migrationLine{{OwnLine, Migrations()}},
		func(ctx context.Context, db *sqlx.DB) error {
			// another service may have been first
			if owned, err := IsOwner(ctx, db, service); owned || err != nil {
				return err
			}
			_, err := db.ExecContext(ctx, `INSERT INTO database_owner (name) VALUES ($1)`, service)
			return err
		})
	if err != nil {
		return fmt.Errorf("claim the database for %s: %w", service, causeOf(err))
	}
	return nil
}

// IsOwner reports whether a service owns a database. The error wraps ErrForeign if another service
// does.
func IsOwner(ctx context.Context, db *sqlx.DB, service string) (bool, error) {
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

// Foreign returns the error with which a service is refused the database of another.
func Foreign(service, owner, database, schema string) error {
	return fmt.Errorf("%w: database %s belongs to service %s (schema %s) and not to service %s: "+
		"give each service a database of its own "+
		"or, if the service was renamed, update the table database_owner", ErrForeign, database, owner,
		schema, service)
}
