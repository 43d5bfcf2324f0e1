package postgres

import (
	"context"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/pressly/goose/v3"
)

// The bounds of a migration: waiting for a lock must not queue everybody else behind it for long.
const (
	migrationLockTimeout = 5 * time.Second
	migrationTimeout     = 10 * time.Minute // of one statement
	migrationWait        = time.Minute      // for other replicas that migrate at the same time
	migrationPoll        = 50 * time.Millisecond
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are those of the line "postgres", which Migrate brings up to date by itself.
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// Migrate brings one line of migrations up to date. A line is the ordered migrations of one owner
// (the outbox, the inbox, a service); its versions are kept in the table migrations_<line>. The
// line of this package comes first by itself. Replicas may call it at the same time: one migrates,
// the others wait, and hold nothing meanwhile that the first may have to wait for.
//
// A migration that waits for a lock is given up after five seconds, since everybody else queues
// behind it. One that is marked NO TRANSACTION, for CREATE INDEX CONCURRENTLY, may wait for as long
// as it takes. The invalid index that such a migration has left when it failed is dropped before it
// is tried again.
func Migrate(ctx context.Context, address, line string, files fs.FS) error {
	err := withLock(ctx, address, []seriesOf{{ownSeries, Migrations()}, {line, files}}, nil)
	if err != nil {
		return fmt.Errorf("migrate %s: %w", line, err)
	}
	return nil
}

// ownSeries is the line of this package.
const ownSeries = "postgres"

// seriesOf is a line with its files.
type seriesOf struct {
	name  string
	files fs.FS
}

// withLock migrates lines, and then calls then, while no other replica does so. Where there is
// nothing to do, as at nearly every start, nobody is waited for.
func withLock(ctx context.Context, address string, lines []seriesOf, then func(ctx context.Context,
	db *sqlx.DB) error) error {
	db, err := open(address, migrationTimeout, migrationLockTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if then == nil {
		if done, err := areUp(ctx, db, lines); done || err != nil {
			return err
		}
	}
	unlock, err := lockMigrations(ctx, db)
	if err != nil {
		return err
	}
	defer unlock()
	for _, l := range lines {
		if err := up(ctx, address, db, l); err != nil {
			return err
		}
	}
	if then == nil {
		return nil
	}
	return then(ctx, db)
}

// lockMigrations waits until no other replica migrates. It asks again and again: a statement that
// waited for the lock would hold a snapshot, for which CREATE INDEX CONCURRENTLY waits in turn.
func lockMigrations(ctx context.Context, db *sqlx.DB) (unlock func(), err error) {
	conn, err := db.Connx(ctx)
	if err != nil {
		return nil, err
	}
	// A process that is stopped meanwhile keeps its connection; the server ends it when no migration
	// can be under way any more.
	_, err = conn.ExecContext(ctx, `SET idle_session_timeout = `+millis(silence))
	until := time.Now().Add(migrationWait)
	tick := time.NewTicker(migrationPoll)
	defer tick.Stop()
	for err == nil {
		var mine bool
		if err = conn.GetContext(ctx, &mine,
			`SELECT pg_try_advisory_lock(hashtextextended('migrate', 0))`); err != nil {
			break
		}
		if mine {
			return func() {
				// it ends the session, and with it the lock
				_ = conn.Raw(func(any) error { return driver.ErrBadConn })
				_ = conn.Close()
			}, nil
		}
		if time.Now().After(until) {
			err = fmt.Errorf("%w for more than %s", errMigrating, migrationWait)
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	_ = conn.Close()
	return nil, err
}

// areUp tells whether lines have nothing to migrate.
func areUp(ctx context.Context, db *sqlx.DB, lines []seriesOf) (bool, error) {
	for _, l := range lines {
		provider, err := providerOf(db, l)
		if err != nil {
			return false, err
		}
		if provider == nil {
			continue
		}
		// Goose creates its table before it looks, which only one replica may do at a time.
		var begun bool
		if err := db.GetContext(ctx, &begun, `SELECT to_regclass($1) IS NOT NULL`,
			tableOf(l.name)); err != nil || !begun {
			return false, err
		}
		if pending, err := provider.HasPending(ctx); pending || err != nil {
			return false, err
		}
	}
	return true, nil
}

// up applies the migrations of a line one by one.
func up(ctx context.Context, address string, db *sqlx.DB, l seriesOf) error {
	provider, err := providerOf(db, l)
	if provider == nil || err != nil {
		return err
	}
	patient, err := open(address, migrationTimeout, 0)
	if err != nil {
		return err
	}
	defer func() { _ = patient.Close() }()
	for {
		next, text, err := nextOf(ctx, provider, l.files)
		if err != nil {
			return err
		}
		by := provider
		if strings.Contains(text, "+goose NO TRANSACTION") {
			if err := dropInvalid(ctx, patient, text); err != nil {
				return err
			}
			if by, err = providerOf(patient, l); err != nil {
				return err
			}
		}
		_, err = by.UpByOne(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return nil
		}
		if err != nil {
			return migrationError{next, err}
		}
	}
}

// nextOf returns the name and the text of the migration that comes next, both empty when there is
// none.
func nextOf(ctx context.Context, provider *goose.Provider, files fs.FS) (name, text string,
	err error) {
	current, err := provider.GetDBVersion(ctx)
	if err != nil {
		return "", "", err
	}
	for _, source := range provider.ListSources() {
		if source.Version > current {
			data, err := fs.ReadFile(files, source.Path)
			return source.Path, string(data), err
		}
	}
	return "", "", nil
}

// dropInvalid drops the indexes that a migration names and that are invalid: CREATE INDEX
// CONCURRENTLY has left them when it failed. One that somebody is building at the moment stays.
func dropInvalid(ctx context.Context, db *sqlx.DB, migration string) error {
	var invalid []string
	err := db.SelectContext(ctx, &invalid, `SELECT c.relname FROM pg_index AS i JOIN pg_class AS c
		ON c.oid = i.indexrelid
		WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = current_schema()::regnamespace
			AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS p
				WHERE p.index_relid = i.indexrelid)`)
	if err != nil {
		return fmt.Errorf("look for invalid indexes: %w", err)
	}
	for _, name := range invalid {
		if !regexp.MustCompile(`(^|[^\w])` + regexp.QuoteMeta(name) +
			`($|[^\w])`).MatchString(migration) {
			continue
		}
		if _, err := db.ExecContext(ctx, `DROP INDEX CONCURRENTLY IF EXISTS `+
			pq.QuoteIdentifier(name)); err != nil {
			return fmt.Errorf("drop the invalid index %s: %w", name, err)
		}
	}
	return nil
}

func tableOf(line string) string { return "migrations_" + line }

// providerOf returns nil for a line without migrations.
func providerOf(db *sqlx.DB, l seriesOf) (*goose.Provider, error) {
	provider, err := goose.NewProvider(goose.DialectPostgres, db.DB, l.files,
		goose.WithTableName(tableOf(l.name)), goose.WithDisableGlobalRegistry(true))
	if errors.Is(err, goose.ErrNoMigrations) {
		return nil, nil
	}
	return provider, err
}
