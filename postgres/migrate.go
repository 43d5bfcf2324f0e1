package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
)

// The bounds of a migration: waiting for a lock must not queue everybody else behind it for long.
const (
	migrationLockTimeout = 5 * time.Second
	migrationTimeout     = 10 * time.Minute // of one statement
	migrationWait        = time.Minute      // for other replicas that migrate at the same time
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are those of the line "postgres", which Migrate brings up to date by itself.
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// Migrate brings one line of migrations up to date. A line is the ordered migrations of one owner
// (the outbox, the inbox, a service); its versions are kept in the table migrations_<line>. The line
// of this package, the table of the leaders, comes first by itself. Replicas may call it at the same
// time: one migrates, the others wait.
func Migrate(ctx context.Context, rawURL, line string, files fs.FS) error {
	db, err := open(rawURL, migrationTimeout, migrationLockTimeout)
	if err != nil {
		return fmt.Errorf("migrate %s: %w", line, err)
	}
	defer func() { _ = db.Close() }()
	if err := migrate(ctx, db, line, files); err != nil {
		return fmt.Errorf("migrate %s: %w", line, err)
	}
	return nil
}

func migrate(ctx context.Context, db *sqlx.DB, line string, files fs.FS) error {
	lines := []struct {
		name  string
		files fs.FS
	}{{"postgres", Migrations()}, {line, files}}
	// Where there is nothing to do, as at nearly every start, nobody is waited for.
	upToDate := true
	for _, l := range lines {
		done, err := isUp(ctx, db, l.name, l.files)
		if err != nil {
			return err
		}
		upToDate = upToDate && done
	}
	if upToDate {
		return nil
	}
	conn, err := db.Connx(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // it ends the session below, and with it the lock
	// A process that is stopped meanwhile keeps its connection; the server ends it when no migration can
	// be under way any more.
	if _, err := conn.ExecContext(ctx, `SET lock_timeout = `+millis(migrationWait)+`; SET idle_session_timeout = `+millis(silence)); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock(hashtextextended($1, 0))`, "migrate"); err != nil {
		return err
	}
	defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock_all()`) }()
	for _, l := range lines {
		if err := up(ctx, db, l.name, l.files); err != nil {
			return err
		}
	}
	return nil
}

// isUp tells whether a line has nothing to migrate.
func isUp(ctx context.Context, db *sqlx.DB, line string, files fs.FS) (bool, error) {
	provider, err := providerOf(db, line, files)
	if provider == nil || err != nil {
		return true, err
	}
	// Goose creates its table before it looks, which only one replica may do at a time.
	var begun bool
	if err := db.GetContext(ctx, &begun, `SELECT to_regclass($1) IS NOT NULL`, tableOf(line)); err != nil || !begun {
		return false, err
	}
	pending, err := provider.HasPending(ctx)
	return !pending, err
}

func up(ctx context.Context, db *sqlx.DB, line string, files fs.FS) error {
	provider, err := providerOf(db, line, files)
	if provider == nil || err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

func tableOf(line string) string { return "migrations_" + line }

// providerOf returns nil for a line without migrations.
func providerOf(db *sqlx.DB, line string, files fs.FS) (*goose.Provider, error) {
	provider, err := goose.NewProvider(goose.DialectPostgres, db.DB, files, goose.WithTableName(tableOf(line)), goose.WithDisableGlobalRegistry(true))
	if errors.Is(err, goose.ErrNoMigrations) {
		return nil, nil
	}
	return provider, err
}
