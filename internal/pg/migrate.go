package pg

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

// The bounds of a migration. All other transactions queue behind one that waits for a lock, so it
// must not wait for long.
const (
	migrationLockTimeout = 5 * time.Second
	migrationTimeout     = 10 * time.Minute // of one statement
	migrationWait        = time.Minute      // for other replicas that migrate at the same time
	migrationPoll        = 50 * time.Millisecond
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the files of the line "postgres". Migrate applies them before those of any
// other line.
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// Migrate applies the pending migrations of one line. A line is the ordered list of migrations of
// one owner (the outbox, the inbox, a service); the table migrations_<line> stores its versions.
// Migrate applies the line of this package first. Replicas may call it at the same time: one of
// them migrates, and the others wait without a lock or a snapshot that could block the first.
//
// A migration fails if it waits for a lock for more than five seconds, since all other transactions
// queue behind it. A migration that is marked NO TRANSACTION, for CREATE INDEX CONCURRENTLY, has no
// such bound. If it fails and leaves an invalid index, the next attempt drops that index first.
func Migrate(ctx context.Context, address, line string, files fs.FS) error {
	err := withLock(ctx, address, []migrationLine{{OwnLine, Migrations()}, {line, files}}, nil)
	if err != nil {
		return fmt.Errorf("migrate %s: %w", line, causeOf(err))
	}
	return nil
}

// causeOf returns what the server has answered, without the words of the library that called it. An
// error of a migration keeps them: they name the statement.
func causeOf(err error) error {
	_, migration := errors.AsType[migrationError](err)
	if cause := serverError(err); cause != nil && !migration {
		return cause
	}
	return err
}

// OwnLine is the name of the line of this package, which comes before all others.
const OwnLine = "postgres"

// migrationLine is a line of migrations: its name and its files.
type migrationLine struct {
	name  string
	files fs.FS
}

// withLock migrates lines and then calls then, while no other replica does the same. If nothing is
// pending, as at nearly every start, it does not wait for other replicas.
func withLock(ctx context.Context, address string, lines []migrationLine,
	then func(ctx context.Context,
		db *sqlx.DB) error) error {
	db, err := open(address, migrationTimeout, migrationLockTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if then == nil {
		if done, err := upToDate(ctx, db, lines); done || err != nil {
			return err
		}
	}
	unlock, err := lockMigrations(ctx, db)
	if err != nil {
		return err
	}
	defer unlock()
	for _, l := range lines {
		if err := migrateUp(ctx, address, db, l); err != nil {
			return err
		}
	}
	if then == nil {
		return nil
	}
	return then(ctx, db)
}

// lockMigrations waits until no other replica migrates. It polls, because a statement that waited
// for the lock would hold a snapshot, and CREATE INDEX CONCURRENTLY of the other replica would wait
// for that snapshot.
func lockMigrations(ctx context.Context, db *sqlx.DB) (unlock func(), err error) {
	conn, err := db.Connx(ctx)
	if err != nil {
		return nil, err
	}
	// A process that is stopped meanwhile keeps its connection. The server closes it after a time in
	// which every migration ends.
	_, err = conn.ExecContext(ctx, `SET idle_session_timeout = `+millis(maxSilence))
	until := time.Now().Add(migrationWait)
	tick := time.NewTicker(migrationPoll)
	defer tick.Stop()
	for err == nil {
		var acquired bool
		if err = conn.GetContext(ctx, &acquired,
			`SELECT pg_try_advisory_lock(hashtextextended('migrate', 0))`); err != nil {
			break
		}
		if acquired {
			return func() {
				// A bad connection is closed, which releases the lock.
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

// upToDate reports whether no migration of the lines is pending.
func upToDate(ctx context.Context, db *sqlx.DB, lines []migrationLine) (bool, error) {
	for _, l := range lines {
		provider, err := providerOf(db, l)
		if err != nil {
			return false, err
		}
		if provider == nil {
			continue
		}
		// Goose creates its table before it looks for pending migrations, and two replicas must not do
		// that at the same time.
		var exists bool
		if err := db.GetContext(ctx, &exists, `SELECT to_regclass($1) IS NOT NULL`,
			tableOf(l.name)); err != nil || !exists {
			return false, err
		}
		if pending, err := provider.HasPending(ctx); pending || err != nil {
			return false, err
		}
	}
	return true, nil
}

// migrateUp applies the pending migrations of a line one by one.
func migrateUp(ctx context.Context, address string, db *sqlx.DB, l migrationLine) error {
	provider, err := providerOf(db, l)
	if provider == nil || err != nil {
		return err
	}
	unbounded, err := open(address, migrationTimeout, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unbounded.Close() }()
	for {
		next, text, err := nextMigration(ctx, provider, l.files)
		if err != nil {
			return err
		}
		by := provider
		if strings.Contains(text, "+goose NO TRANSACTION") {
			if err := dropInvalid(ctx, unbounded, text); err != nil {
				return err
			}
			if by, err = providerOf(unbounded, l); err != nil {
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

// nextMigration returns the name and the text of the next pending migration. Both are empty if none
// is pending.
func nextMigration(ctx context.Context, provider *goose.Provider, files fs.FS) (name, text string,
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

// dropInvalid drops the invalid indexes that a migration names: a CREATE INDEX CONCURRENTLY that
// failed has left them. An index that is still being built is also invalid, and is not dropped.
func dropInvalid(ctx context.Context, db *sqlx.DB, migration string) error {
	var invalid []string
	err := db.SelectContext(ctx, &invalid, `SELECT c.relname FROM pg_index AS i JOIN pg_class AS c
		ON c.oid = i.indexrelid
		WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = current_schema()::regnamespace
			AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS p
				WHERE p.index_relid = i.indexrelid)`)
	if err != nil {
		return fmt.Errorf("list invalid indexes: %w", err)
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

// providerOf returns the goose provider of a line, or nil if the line has no migrations.
func providerOf(db *sqlx.DB, l migrationLine) (*goose.Provider, error) {
	provider, err := goose.NewProvider(goose.DialectPostgres, db.DB, l.files,
		goose.WithTableName(tableOf(l.name)), goose.WithDisableGlobalRegistry(true))
	if errors.Is(err, goose.ErrNoMigrations) {
		return nil, nil
	}
	return provider, err
}
