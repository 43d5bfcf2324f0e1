package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

// The bounds of leading, unless a Leader says otherwise.
const (
	// DefaultLease is how long the session of a leader may be silent, also in a transaction or while
	// it is being sent an answer. A stopped process keeps its connection, and would keep its lock for
	// ever; the server ends the session instead.
	DefaultLease    = 10 * time.Second
	standbyInterval = 250 * time.Millisecond
	leadAttempt     = 5 * time.Second
)

// ErrSuperseded says that another replica leads by now, and that nothing was written.
var ErrSuperseded = errors.New("another replica leads")

// Leader is what runs once among replicas: Name is the same in all of them. It may be copied.
type Leader struct {
	DB    *sqlx.DB
	Name  string
	Lease time.Duration // 0: DefaultLease
}

// Lead is the leadership for one name: a session that holds an advisory lock, and the token that
// was raised when it took it. It is lost with that session; but a leader that was stopped does not
// know that yet, and so what only the leader may write is written in Tx.
type Lead struct {
	db    *sqlx.DB
	conn  *sqlx.Conn
	name  string
	lease time.Duration
	pid   int // of the session
	Token int64
}

// lockSQL takes the lock and bounds the session that has it in one statement: between two, a
// process could be stopped with a lock that nothing ends.
const lockSQL = `
SELECT pg_backend_pid(), (SELECT count(set_config(name, $2, false))
	FROM unnest(ARRAY['idle_session_timeout', 'idle_in_transaction_session_timeout',
	'tcp_user_timeout']) AS name WHERE mine) > 0
FROM (SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS mine OFFSET 0) AS lock`

// Try returns the leadership, or nil when another session has it. The holder must call Keep, or use
// Conn every few seconds, and Release.
func (l Leader) Try(ctx context.Context) (*Lead, error) {
	ctx, cancel := context.WithTimeout(ctx, leadAttempt)
	defer cancel()
	conn, err := sessionsOf(l.DB).Connx(ctx)
	if err != nil {
		return nil, fmt.Errorf("lead %s: %w", l.Name, err)
	}
	lead := &Lead{db: l.DB, conn: conn, name: l.Name, lease: l.Lease}
	if lead.lease == 0 {
		lead.lease = DefaultLease
	}
	var mine bool
	err = conn.QueryRowxContext(ctx, lockSQL, l.Name, millis(lead.lease)).Scan(&lead.pid, &mine)
	if err == nil && mine {
		err = conn.GetContext(ctx, &lead.Token, `INSERT INTO leaders (name, token) VALUES ($1, 1)
			ON CONFLICT (name) DO UPDATE SET token = leaders.token + 1, since = now() RETURNING token`,
			l.Name)
	}
	if err != nil {
		lead.Release()
		return nil, fmt.Errorf("lead %s: %w", l.Name, err)
	}
	if !mine {
		_ = conn.Close() // back to the pool: nothing was changed in the session
		return nil, nil
	}
	return lead, nil
}

// Run calls work whenever this replica leads, with a context that ends when it no longer does,
// until ctx is done; the others stand by and try every 250 ms. What goes wrong is told to trouble,
// and tried again; trouble may wait.
func (l Leader) Run(ctx context.Context, work func(ctx context.Context, lead *Lead) error,
	problem func(error)) {
	for ctx.Err() == nil {
		lead, err := l.Try(ctx)
		if lead != nil {
			kept, stop := lead.Keep(ctx)
			err = work(kept, lead)
			stop()
			lead.Release()
		}
		if err != nil && ctx.Err() == nil {
			problem(err)
		}
		timer := time.NewTimer(standbyInterval)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Fenced is a transaction of the leader. Only Lead.Tx makes one, so that a function which asks for
// it cannot be called by anybody else.
type Fenced struct{ tx *sqlx.Tx }

// Tx is the transaction; it must not be kept.
func (f Fenced) Tx() *sqlx.Tx { return f.tx }

// Tx runs f in a transaction that commits only while the token is the latest, and otherwise returns
// ErrSuperseded: the token is the last that it locks, so that no successor is there before the
// commit. What a leader has locked when it is stopped keeps a successor waiting for no longer than
// the lease. It is safe for concurrent use. The other errors are those of InTx.
func (l *Lead) Tx(ctx context.Context, f func(tx Fenced) error) error {
	return InTx(ctx, l.db, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `SELECT set_config('idle_in_transaction_session_timeout', $1,
			true)`, millis(l.lease)); err != nil {
			return fmt.Errorf("bound the transaction of %s: %w", l.name, err)
		}
		if err := f(Fenced{tx}); err != nil {
			return err
		}
		var held bool
		err := tx.GetContext(ctx, &held, `SELECT true FROM leaders WHERE name = $1
			AND token = $2 FOR SHARE`, l.name, l.Token)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%s: %w", l.name, ErrSuperseded)
		}
		if err != nil {
			return fmt.Errorf("hold the token of %s: %w", l.name, err)
		}
		return nil
	})
}

// Conn is the session that holds the lock, for reading and for a single hot statement that holds
// the token in itself. An error on it means that the lead is lost. Not for concurrent use.
func (l *Lead) Conn() *sqlx.Conn { return l.conn }

// Keep shows the server a sign of life in the background, and returns a context that ends with ctx
// or as soon as the session is found lost. Call stop before Release.
func (l *Lead) Keep(ctx context.Context) (kept context.Context, stop func()) {
	kept, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(l.lease / 5)
		defer tick.Stop()
		for {
			select {
			case <-kept.Done():
				return
			case <-tick.C:
				answered := make(chan struct{})
				go l.doubt(kept, cancel, answered)
				_, err := l.conn.ExecContext(kept, `SELECT 1`)
				close(answered)
				if err != nil && !l.alive() {
					cancel()
				}
			}
		}
	})
	return kept, func() { cancel(); running.Wait() }
}

// doubt gives the lead up when a sign of life is not answered for a lease, unless another
// connection tells that the session has the lock and so is only at a long statement; when nobody
// can be asked, after three. On a line that has gone silent the driver waits, whatever its context
// says, and meanwhile another leads.
func (l *Lead) doubt(kept context.Context, giveUp func(), answered <-chan struct{}) {
	for vain := 0; vain < 2; {
		select {
		case <-answered:
			return
		case <-kept.Done():
			return
		case <-time.After(l.lease):
		}
		asked := make(chan error, 1)
		go func() { asked <- l.holds(kept) }() // this line may be silent as well
		select {
		case <-answered:
			return
		case <-kept.Done():
			return
		case err := <-asked:
			switch {
			case err == nil:
				vain = 0
				continue
			case errors.Is(err, ErrSuperseded):
				giveUp()
				return
			}
		case <-time.After(l.lease / 2):
		}
		vain++
	}
	giveUp()
}

// holds asks on another connection whether the session has its lock; it is ErrSuperseded when not.
func (l *Lead) holds(ctx context.Context) error {
	var yes bool
	err := l.db.GetContext(ctx, &yes, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory'
		AND granted AND pid = $1
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`, l.pid)
	if err == nil && !yes {
		return ErrSuperseded
	}
	return err
}

// alive tells a lost session from one on which the sign of life found an answer being read, or
// a transaction that has failed.
func (l *Lead) alive() bool {
	return l.conn.Raw(func(c any) error {
		if v, ok := c.(driver.Validator); ok && !v.IsValid() {
			return driver.ErrBadConn
		}
		return nil
	}) == nil
}

// Release gives the lead up by ending the session.
func (l *Lead) Release() {
	_ = l.conn.Raw(func(any) error { return driver.ErrBadConn }) // the pool discards a bad connection
	_ = l.conn.Close()
}
