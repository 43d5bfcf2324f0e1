package postgres

import (
	"context"
	"database/sql/driver"
	"strings"
	"sync/atomic"

	"github.com/jmoiron/sqlx"
)

// connector makes the sessions of a pool: those of the driver, with the bounds of every session
// set.
type connector struct {
	driver.Connector
	setup string // a statement that every session begins with
	pool  *pool
}

// pool is what the sessions of one pool share.
type pool struct {
	driver.Driver
	usual      string       // statements that bring a user's planner settings back
	generation atomic.Int64 // sessions of an earlier one are not used again
	suspected  atomic.Int64 // when a statement was last suspected of being outdated, in nanoseconds

	sessions atomic.Pointer[sqlx.DB] // see LeadThrough
}

// LeadThrough gives the leaders of a pool another pool of the same database for the sessions that
// they keep: one that leads to the server where the first leads through a pooler.
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

// Connect makes a session. The bounds are set by a statement and not by parameters of the start-up,
// which a pooler would refuse.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	generation := c.pool.generation.Load()
	var failure failure
	made, err := c.Connector.Connect(context.WithValue(ctx, failureKey{}, &failure))
	if err != nil {
		return nil, failure.of(err)
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
	return &conn{session: s, pool: c.pool, generation: generation}, nil
}

// session is what the driver's connections can do.
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

// conn is a session that knows two things which the driver's does not: that a migration outdates
// what is prepared in it, and that only the statements of this kit want the planner's settings to
// be other than usual.
type conn struct {
	session
	pool       *pool
	generation int64
	spoiled    bool // it is not used again
	inTx       bool
	reading    bool // rows of a statement are being read
	byIndex    bool // the planner's settings are those for the kit's statements
	// mayEnd is of a transaction of InTx; it is set when the code that runs in it has returned.
	mayEnd *atomic.Bool
	before bool // what byIndex was when the transaction began: a rollback brings it back
}

// ResetSession is asked before the session is used again.
func (c *conn) ResetSession(ctx context.Context) error {
	if c.spoiled || c.generation < c.pool.generation.Load() {
		return driver.ErrBadConn
	}
	return c.session.ResetSession(ctx)
}

// IsValid tells whether the session may be used again.
func (c *conn) IsValid() bool { return !c.spoiled && c.session.IsValid() }

func (c *conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	tx, err := c.session.BeginTx(ctx, o)
	if err != nil {
		return nil, c.judge(err)
	}
	c.inTx, c.before = true, c.byIndex
	c.mayEnd, _ = ctx.Value(mayEndKey{}).(*atomic.Bool)
	return transaction{tx, c}, nil
}

// transaction is one of conn.
type transaction struct {
	driver.Tx
	conn *conn
}

func (t transaction) Commit() error {
	if t.conn.mustNotEnd() {
		_ = t.Rollback()
		return errNotItsOwn
	}
	t.conn.inTx = false
	err := t.Tx.Commit()
	if err != nil {
		t.conn.byIndex = t.conn.before
	}
	return t.conn.judge(err)
}

func (t transaction) Rollback() error {
	t.conn.inTx, t.conn.byIndex = false, t.conn.before
	return t.Tx.Rollback()
}

func (c *conn) ExecContext(ctx context.Context, query string,
	args []driver.NamedValue) (driver.Result, error) {
	if c.mustNotEnd() && endsTransaction(query) {
		return nil, errNotItsOwn
	}
	if err := c.plan(ctx, plannedByIndex(ctx, query)); err != nil {
		return nil, err
	}
	result, err := c.session.ExecContext(ctx, query, args)
	return result, c.judge(err)
}

func (c *conn) QueryContext(ctx context.Context, query string,
	args []driver.NamedValue) (driver.Rows, error) {
	if err := c.plan(ctx, plannedByIndex(ctx, query)); err != nil {
		return nil, err
	}
	rows, err := c.session.QueryContext(ctx, query, args)
	return c.read(rows, err), c.judge(err)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if c.reading {
		return nil, errReading
	}
	made, err := c.session.PrepareContext(ctx, query)
	if err != nil {
		return nil, c.judge(err)
	}
	return &stmt{Stmt: made, conn: c, kit: strings.HasPrefix(query, kitMark),
		byIndex: plannedByIndex(ctx, query)}, nil
}

// Prepare is PrepareContext; database/sql does not call it.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// judge looks at what a statement failed with, and takes a session that cannot serve any more out
// of use.
func (c *conn) judge(err error) error {
	answer := answerOf(err)
	switch {
	case answer == nil:
	case outdated(answer):
		c.retire() // the others have the same statements
	case answer.Code == "25006":
		// The setting may have been for new sessions only, as is the one that lifts it.
		c.spoiled = true
	}
	return err
}

// stmt is a prepared statement of conn.
type stmt struct {
	driver.Stmt
	conn    *conn
	kit     bool // it is one of Statements
	byIndex bool
	worked  bool // it has been executed without an error
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	e, ok := s.Stmt.(driver.StmtExecContext)
	if !ok { // a COPY
		values := make([]driver.Value, len(args))
		for i, a := range args {
			values[i] = a.Value
		}
		return s.Stmt.Exec(values) //nolint:staticcheck // the driver has no other for it
	}
	if err := s.conn.plan(ctx, s.byIndex); err != nil {
		return nil, err
	}
	result, err := e.ExecContext(ctx, args)
	return result, s.judge(err)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	q, ok := s.Stmt.(driver.StmtQueryContext)
	if !ok {
		return nil, errDriver
	}
	if err := s.conn.plan(ctx, s.byIndex); err != nil {
		return nil, err
	}
	rows, err := q.QueryContext(ctx, args)
	return s.conn.read(rows, err), s.judge(err)
}

// judge is that of conn, for a statement that was prepared some time ago. Where it failed because
// of that and nothing can have happened, another session runs it; in a transaction it is for the
// caller.
func (s *stmt) judge(err error) error {
	answer := answerOf(s.conn.judge(err))
	switch {
	case answer == nil:
		s.worked = s.worked || err == nil
		return err
	case outdated(answer) && !s.conn.inTx:
		return driver.ErrBadConn
	case s.kit && mayBeOutdated(answer, s.worked) && s.conn.suspect():
		return outdatedError{err}
	}
	return err
}
