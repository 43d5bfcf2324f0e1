package pg

import (
	"context"
	"database/sql/driver"
	"strings"
	"sync/atomic"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// connector opens the sessions of a pool with the driver, and sets the bounds of each session.
type connector struct {
	driver.Connector
	setup string // the first statement of every session
	pool  *pool
}

// pool is the state that the sessions of one pool share.
type pool struct {
	driver.Driver
	usual      string       // statements that restore a user's planner settings
	generation atomic.Int64 // a session of an earlier generation is not used again
	suspected  atomic.Int64 // when a statement was last suspected to be outdated, in nanoseconds

	sessions atomic.Pointer[sqlx.DB] // see LeadThrough
}

// LeadThrough sets a second pool of the same database for the sessions that leaders keep. It must
// connect to the server itself if db connects through a pooler, which could give the session of
// a leader to another client.
func LeadThrough(db, sessions *sqlx.DB) {
	if p, ok := db.Driver().(*pool); ok {
		p.sessions.Store(sessions)
	}
}

// sessionsOf returns the pool for the sessions of leaders.
func sessionsOf(db *sqlx.DB) *sqlx.DB {
	if p, ok := db.Driver().(*pool); ok {
		if sessions := p.sessions.Load(); sessions != nil {
			return sessions
		}
	}
	return db
}

func (c *connector) Driver() driver.Driver { return c.pool }

// Connect opens a session. A statement sets the bounds, since a pooler would refuse them as
// parameters of the start-up.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	generation := c.pool.generation.Load()
	var failure failure
	made, err := c.Connector.Connect(context.WithValue(ctx, failureKey{}, &failure))
	if err != nil {
		return nil, failure.cause(err)
	}
	s, ok := made.(session)
	if !ok {
		_ = made.Close()
		return nil, errDriver
	}
	if _, err := s.ExecContext(ctx, c.setup, nil); err != nil {
		_ = made.Close()
		return nil, err
	}
	opened := &conn{session: s, pool: c.pool, generation: generation}
	pq.SetNoticeHandler(made, opened.checkNotice)
	return opened, nil
}

// session has all the methods of the driver's connections. If conn lacked one of them, database/sql
// would silently take a slower path.
type session interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// conn is a session of the driver with two additions: it replaces itself when a migration has
// outdated its prepared statements, and it changes the settings of the planner for the statements
// of this kit only.
type conn struct {
	session
	pool       *pool
	generation int64
	unusable   bool // the pool must not use the session again
	inTx       bool
	reading    bool // rows of a statement are being read
	byIndex    bool // the planner has the settings for the kit's statements
	// mayEnd belongs to a transaction of InTx. It becomes true when the code in it has returned.
	mayEnd        *atomic.Bool
	byIndexBefore bool // byIndex when the transaction began; a rollback restores it
	unreplicated  bool // the server has stopped waiting for a standby; see checkNotice
}

// ResetSession runs before the pool uses the session again.
func (c *conn) ResetSession(ctx context.Context) error {
	c.unreplicated = false // it belonged to a statement that failed anyway
	if c.unusable || c.generation < c.pool.generation.Load() {
		return driver.ErrBadConn
	}
	return c.session.ResetSession(ctx)
}

// IsValid reports whether the pool may use the session again.
func (c *conn) IsValid() bool { return !c.unusable && c.session.IsValid() }

func (c *conn) ExecContext(ctx context.Context, query string,
	args []driver.NamedValue) (driver.Result, error) {
	if c.mustNotEnd() && endsTransaction(query) {
		return nil, errNotOwner
	}
	if err := c.setPlanner(ctx, plannedByIndex(ctx, query)); err != nil {
		return nil, err
	}
	result, err := c.session.ExecContext(ctx, query, args)
	return result, c.checkError(err)
}

func (c *conn) QueryContext(ctx context.Context, query string,
	args []driver.NamedValue) (driver.Rows, error) {
	if err := c.setPlanner(ctx, plannedByIndex(ctx, query)); err != nil {
		return nil, err
	}
	rows, err := c.session.QueryContext(ctx, query, args)
	return c.trackRows(rows, err), c.checkError(err)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if c.reading {
		return nil, errReading
	}
	made, err := c.session.PrepareContext(ctx, query)
	if err != nil {
		return nil, c.checkError(err)
	}
	return &stmt{Stmt: made, conn: c, kit: strings.HasPrefix(query, kitMark),
		byIndex: plannedByIndex(ctx, query)}, nil
}

// Prepare implements driver.Conn. Database/sql calls PrepareContext instead.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// checkError returns err, the error of a statement, and marks the session as unusable if it says
// that later statements would fail as well. A success that no standby has is no success.
func (c *conn) checkError(err error) error {
	pgErr := serverError(err)
	switch {
	case err == nil && c.unreplicated:
		c.unreplicated = false
		return errUnreplicated
	case pgErr == nil:
	case outdated(pgErr):
		c.retire() // the other sessions have the same statements
	case pgErr.Code == "25006":
		// The read-only setting, and the one that ends it, may apply to new sessions only.
		c.unusable = true
	}
	return err
}

// stmt is a prepared statement of conn.
type stmt struct {
	driver.Stmt
	conn      *conn
	kit       bool // it belongs to Statements
	byIndex   bool
	succeeded bool // it has run without an error before
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	e, ok := s.Stmt.(driver.StmtExecContext)
	if !ok { // a COPY
		values := make([]driver.Value, len(args))
		for i, a := range args {
			values[i] = a.Value
		}
		return s.Stmt.Exec(values) //nolint:staticcheck // the driver has no other method for a COPY
	}
	if err := s.conn.setPlanner(ctx, s.byIndex); err != nil {
		return nil, err
	}
	result, err := e.ExecContext(ctx, args)
	return result, s.checkError(err)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	q, ok := s.Stmt.(driver.StmtQueryContext)
	if !ok {
		return nil, errDriver
	}
	if err := s.conn.setPlanner(ctx, s.byIndex); err != nil {
		return nil, err
	}
	rows, err := q.QueryContext(ctx, args)
	return s.conn.trackRows(rows, err), s.checkError(err)
}

// checkError does the same as that of conn, and handles a statement that failed because it was
// prepared before a migration. Outside a transaction nothing can have happened, so database/sql
// runs it again in another session. In a transaction only the caller can run it again.
func (s *stmt) checkError(err error) error {
	err = s.conn.checkError(err)
	pgErr := serverError(err)
	switch {
	case pgErr == nil:
		s.succeeded = s.succeeded || err == nil
		return err
	case outdated(pgErr) && !s.conn.inTx:
		return driver.ErrBadConn
	case s.kit && mayBeOutdated(pgErr, s.succeeded) && s.conn.suspect():
		return outdatedError{err}
	}
	return err
}
