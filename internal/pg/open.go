package pg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// The bounds of every session of Open, unless the address sets others.
const (
	connectTimeout     = 5 * time.Second
	statementTimeout   = 30 * time.Second
	lockTimeout        = 10 * time.Second
	idleInTransaction  = 30 * time.Second
	maxConnections     = 16
	connectionLifetime = 30 * time.Minute
)

// Open returns a pool for the address of a database, a postgres:// URL or key=value pairs as
// Address reads them. Open does not connect.
//
// A statement that has parameters and is not prepared takes two round trips. With one round trip
// the driver would send []byte in a binary form that only bytea columns accept.
func Open(address string) (*sqlx.DB, error) { return open(address, statementTimeout, lockTimeout) }

func open(raw string, statement, lock time.Duration) (*sqlx.DB, error) {
	address, err := Address(raw)
	if err != nil {
		return nil, err
	}
	config, err := pq.NewConfig(address)
	if err != nil { // it may repeat the address
		return nil, errors.New("open database: its address has an option that the driver refuses")
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	settings := map[string]string{
		"statement_timeout":                   millis(statement),
		"lock_timeout":                        millis(lock),
		"idle_in_transaction_session_timeout": millis(idleInTransaction),
	}
	maps.Copy(settings, config.Runtime)
	p := &pool{Driver: &pq.Driver{}, usual: usualSQL(config.Runtime)}
	config.Runtime = nil
	inner, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, errors.New("open database: its address has an option that the driver refuses")
	}
	inner.Dialer(dialer{})
	db := sqlx.NewDb(sql.OpenDB(&connector{Connector: inner, setup: setupSQL(settings), pool: p}),
		"postgres")
	db.SetMaxOpenConns(maxConnections)
	db.SetMaxIdleConns(maxConnections) // with the default of 2 a busy pool reconnects all the time
	db.SetConnMaxLifetime(connectionLifetime)
	return db, nil
}

// setupSQL returns one statement that makes all settings. It uses set_config, which accepts a list
// such as that of search_path in the form of the address; SET does not.
func setupSQL(settings map[string]string) string {
	list := make([]string, 0, len(settings))
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		list = append(list, fmt.Sprintf("set_config(%s, %s, false)", pq.QuoteLiteral(name),
			pq.QuoteLiteral(settings[name])))
	}
	return "SELECT " + strings.Join(list, ", ")
}

func millis(d time.Duration) string { return fmt.Sprint(int(d / time.Millisecond)) }

// ErrNotDurable means that the settings of a database let it lose committed transactions.
var ErrNotDurable = errors.New("the database may lose committed transactions")

// CheckDurable returns ErrNotDurable if the database may lose committed transactions, since fsync,
// full_page_writes or synchronous_commit is off. A standby, which refuses writes, gives another
// error: it may be promoted, so waiting helps.
func CheckDurable(ctx context.Context, db sqlx.QueryerContext) error {
	var s struct {
		Fsync, Pages, Commit string
		Standby              bool
	}
	err := sqlx.GetContext(ctx, db, &s, `SELECT current_setting('fsync') AS fsync,
		current_setting('full_page_writes') AS pages,
		current_setting('synchronous_commit') AS commit, pg_is_in_recovery() AS standby`)
	if err != nil {
		return fmt.Errorf("read the settings of the database server: %w", err)
	}
	var faults []string
	for name, value := range map[string]string{"fsync": s.Fsync, "full_page_writes": s.Pages,
		"synchronous_commit": s.Commit} {
		if value == "off" {
			faults = append(faults, name+" is off")
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %s", ErrNotDurable, strings.Join(faults, ", "))
	}
	if s.Standby {
		return errStandby
	}
	return nil
}
