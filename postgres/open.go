package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// The bounds of every session that Open makes, unless the URL says otherwise.
const (
	connectTimeout     = 5 * time.Second
	statementTimeout   = 30 * time.Second
	lockTimeout        = 10 * time.Second
	idleInTransaction  = 30 * time.Second
	maxConnections     = 16
	connectionLifetime = 30 * time.Minute
)

// Open returns a pool for a postgres:// URL. The URL must name its sslmode, since the default of
// the driver has changed between versions. Open does not connect.
func Open(rawURL string) (*sqlx.DB, error) { return open(rawURL, statementTimeout, lockTimeout) }

func open(rawURL string, statement, lock time.Duration) (*sqlx.DB, error) {
	dsn, err := withBounds(rawURL, statement, lock)
	if err != nil {
		return nil, err
	}
	connector, err := pq.NewConnector(dsn)
	if err != nil { // it may repeat the URL
		return nil, errors.New("open database: the URL has an option that the driver refuses")
	}
	connector.Dialer(dialer{})
	db := sqlx.NewDb(sql.OpenDB(connector), "postgres")
	db.SetMaxOpenConns(maxConnections)
	db.SetMaxIdleConns(maxConnections) // the default of 2 makes a busy pool connect anew all the time
	db.SetConnMaxLifetime(connectionLifetime)
	return db, nil
}

// withBounds adds the time-outs to the URL. Its errors do not repeat the URL, which holds a password.
func withBounds(rawURL string, statement, lock time.Duration) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || u.Host == "" {
		return "", errors.New("database URL: want postgres://user:password@host:port/name?sslmode=…")
	}
	q := u.Query()
	if q.Get("sslmode") == "" {
		return "", fmt.Errorf("database URL of %s%s: sslmode is not set (disable on this machine, verify-full across a network)", u.Host, u.Path)
	}
	bounds := map[string]string{
		"binary_parameters":                   "yes", // one round trip instead of two for a statement that is not prepared
		"connect_timeout":                     seconds(connectTimeout),
		"statement_timeout":                   millis(statement),
		"lock_timeout":                        millis(lock),
		"idle_in_transaction_session_timeout": millis(idleInTransaction),
		// A prepared statement keeps the plan of its first days: made when a table was small, it reads all
		// of it for ever after. With these the planner takes the index that every hot statement has.
		"enable_seqscan": "off",
		"jit":            "off",
	}
	for key, value := range bounds {
		if q.Get(key) == "" {
			q.Set(key, value)
		}
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

func seconds(d time.Duration) string { return fmt.Sprint(int(d / time.Second)) }
func millis(d time.Duration) string  { return fmt.Sprint(int(d / time.Millisecond)) }

// ErrNotDurable says that the settings of a database let it lose what it has committed.
var ErrNotDurable = errors.New("the database may lose what it has committed")

// CheckDurable refuses a database that may lose what it has committed, with ErrNotDurable: fsync,
// full_page_writes or synchronous_commit off. A standby, which cannot be written, is another error: it may
// be promoted.
func CheckDurable(ctx context.Context, db sqlx.QueryerContext) error {
	var s struct {
		Fsync, Pages, Commit string
		Standby              bool
	}
	err := sqlx.GetContext(ctx, db, &s, `SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS pages,
		current_setting('synchronous_commit') AS commit, pg_is_in_recovery() AS standby`)
	if err != nil {
		return fmt.Errorf("check durability: %w", err)
	}
	var faults []string
	for name, value := range map[string]string{"fsync": s.Fsync, "full_page_writes": s.Pages, "synchronous_commit": s.Commit} {
		if value == "off" {
			faults = append(faults, name+" is off")
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %s", ErrNotDurable, strings.Join(faults, ", "))
	}
	if s.Standby {
		return errors.New("the database is a standby: connect to the primary")
	}
	return nil
}
