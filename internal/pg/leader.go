package pg

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

// The bounds of leadership, unless a Leader sets others.
const (
	// DefaultLease is how long the session of a leader may be silent, also in a transaction or while
	// it receives an answer. A stopped process keeps its connection and would keep its lock forever,
	// so the server ends the session.
	DefaultLease    = 10 * time.Second
	standbyInterval = 250 * time.Millisecond
	leadAttempt     = 5 * time.Second
)

// ErrSuperseded means that another replica has taken the lead and that nothing was written.
var ErrSuperseded = errors.New("another replica leads")

// Leader names a task that only one of the replicas may do at a time: all of them use the same
// Name. It may be copied.
type Leader struct {
	DB    *sqlx.DB
	Name  string
	Lease time.Duration // 0: DefaultLease
}

// Lead is the leadership for one name. It consists of a session that holds an advisory lock, and of
// a token, which each new leader raises. The leadership ends with the session, but a process that
// was stopped does not know that when it continues. It must therefore write in Tx, which checks the
// token.
type Lead struct {
	db    *sqlx.DB
	conn  *sqlx.Conn
	name  string
	lease time.Duration
	pid   int // of the session
	Token int64
}

// lockSQL takes the lock and bounds the session that holds it in one statement. Between two
// statements the process could be stopped, and nothing would release the lock.
const lockSQL = `
SELECT pg_backend_pid(), (SELECT count(set_config(name, $2, false))
	FROM unnest(ARRAY['idle_session_timeout', 'idle_in_transaction_session_timeout',
	'tcp_user_timeout']) AS name WHERE mine) > 0
FROM (SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS mine OFFSET 0) AS lock`

// Try returns the leadership, or nil if another session has it. The caller must call Keep, or use
// Conn every few seconds, and call Release in the end.
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
	var acquired bool
	err = conn.QueryRowxContext(ctx, lockSQL, l.Name, millis(lead.lease)).Scan(&lead.pid, &acquired)
	if err == nil && acquired {
		err = conn.GetContext(ctx, &lead.Token, `INSERT INTO leaders (name, token) VALUES ($1, 1)
			ON CONFLICT (name) DO UPDATE SET token = leaders.token + 1, since = now() RETURNING token`,
			l.Name)
	}
	if err != nil {
		lead.Release()
		return nil, fmt.Errorf("lead %s: %w", l.Name, err)
	}
	if !acquired {
		_ = conn.Close() // the pool can use the session, which has not been changed
		return nil, nil
	}
	return lead, nil
}

// Run calls work whenever this replica leads, until ctx is done. The context of work ends when the
// replica loses the lead. The other replicas try to take the lead every 250 ms. Run passes each
// error to onError, which may wait before it returns, and then tries again.
func (l Leader) Run(ctx context.Context, work func(ctx context.Context, lead *Lead) error,
	onError func(error)) {
	for ctx.Err() == nil {
		lead, err := l.Try(ctx)
		if lead != nil {
			kept, stop := lead.Keep(ctx)
			err = work(kept, lead)
			stop()
			lead.Release()
		}
		if err != nil && ctx.Err() == nil {
			onError(err)
		}
		timer := time.NewTimer(standbyInterval)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Fenced is a transaction of the leader. Only Lead.Tx makes one, so a function with such a
// parameter runs under the leader's token only.
type Fenced struct{ tx *sqlx.Tx }

// Tx returns the transaction, which the caller must not keep.
func (f Fenced) Tx() *sqlx.Tx { return f.tx }

// Tx runs f in a transaction that commits only if the token is still the latest, and otherwise
// returns ErrSuperseded. It locks the row of the token just before the commit, so that no successor
// can take the lead in between. If the process is stopped in the transaction, a successor waits for
// its locks at most as long as the lease. Tx is safe for concurrent use. The other errors are those
// of InTx.
func (l *Lead) Tx(ctx context.Context, f func(tx Fenced) error) error {
	return InTx(ctx, l.db, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `SELECT set_config('idle_in_transaction_session_timeout', $1,
			true)`, millis(l.lease)); err != nil {
			return fmt.Errorf("bound the transaction of %s: %w", l.name, err)
		}
		if err := f(Fenced{tx}); err != nil {
			return err
		}
		var latest bool
		err := tx.GetContext(ctx, &latest, `SELECT true FROM leaders WHERE name = $1
			AND token = $2 FOR SHARE`, l.name, l.Token)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%s: %w", l.name, ErrSuperseded)
		}
		if err != nil {
			return fmt.Errorf("lock the token of %s: %w", l.name, err)
		}
		return nil
	})
}

// Conn returns the session that holds the lock. Use it to read, or for a hot statement that checks
// the token itself. An error on it means that the lead is lost. It is not safe for concurrent use.
func (l *Lead) Conn() *sqlx.Conn { return l.conn }

// Keep sends heartbeats to the server in the background. It returns a context that ends with ctx or
// as soon as a heartbeat finds the session lost. Call stop before Release.
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
				go l.giveUpWhenSilent(kept, cancel, answered)
				_, err := l.conn.ExecContext(kept, `SELECT 1`)
				close(answered)
				if err != nil && !l.sessionUsable() {
					cancel()
				}
			}
		}
	})
	return kept, func() { cancel(); running.Wait() }
}

// giveUpWhenSilent calls giveUp if a heartbeat has no answer for one lease, unless a check on
// another connection shows that the session still has the lock and is only busy with a long
// statement. If that check does not succeed either, it calls giveUp after about three leases. On
// a silent connection the driver ignores the end of the context and waits, while another replica
// takes the lead.
func (l *Lead) giveUpWhenSilent(kept context.Context, giveUp func(), answered <-chan struct{}) {
	for unanswered := 0; unanswered < 2; {
		select {
		case <-answered:
			return
		case <-kept.Done():
			return
		case <-time.After(l.lease):
		}
		checked := make(chan error, 1)
		go func() { checked <- l.checkLock(kept) }() // this connection may be silent as well
		select {
		case <-answered:
			return
		case <-kept.Done():
			return
		case err := <-checked:
			switch {
			case err == nil:
				unanswered = 0
				continue
			case errors.Is(err, ErrSuperseded):
				giveUp()
				return
			}
		case <-time.After(l.lease / 2):
		}
		unanswered++
	}
	giveUp()
}

// checkLock checks on another connection whether the session has its lock, and returns
// ErrSuperseded if not.
func (l *Lead) checkLock(ctx context.Context) error {
	var locked bool
	err := l.db.GetContext(ctx, &locked, `SELECT EXISTS (SELECT FROM pg_locks
		WHERE locktype = 'advisory'
		AND granted AND pid = $1
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`, l.pid)
	if err == nil && !locked {
		return ErrSuperseded
	}
	return err
}

// sessionUsable reports whether the session still exists. A heartbeat also fails while an answer is
// being read or after a transaction has failed, and neither costs the lead.
func (l *Lead) sessionUsable() bool {
	return l.conn.Raw(func(c any) error {
		if v, ok := c.(driver.Validator); ok && !v.IsValid() {
			return driver.ErrBadConn
		}
		return nil
	}) == nil
}

// Release gives up the lead by closing the session.
func (l *Lead) Release() {
	_ = l.conn.Raw(func(any) error { return driver.ErrBadConn }) // the pool discards a bad connection
	_ = l.conn.Close()
}
