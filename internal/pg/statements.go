package pg

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

// Statements keeps the hot statements of one pool prepared, so that each costs one round trip and
// no planning. It is safe for concurrent use.
type Statements struct {
	db        *sqlx.DB
	mu        sync.Mutex
	prepared  map[string]*sqlx.Stmt
	preparing map[string]bool              // see prepareSpare
	types     map[string]map[string]string // see ColumnTypes
	typesOf   int64                        // the generation of the pool in which they were read
}

// NewStatements returns an empty cache for db. It never drops a statement, so use it for a fixed
// set of statements.
func NewStatements(db *sqlx.DB) *Statements {
	return &Statements{db: db, prepared: map[string]*sqlx.Stmt{}, preparing: map[string]bool{},
		types: map[string]map[string]string{}}
}

// On returns the prepared statement for use on the pool.
func (s *Statements) On(ctx context.Context, query string) (*sqlx.Stmt, error) {
	s.mu.Lock()
	stmt, ok := s.prepared[query]
	s.mu.Unlock()
	if ok {
		return stmt, nil
	}
	stmt, err := s.db.PreparexContext(ctx, kitMark+query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if first, raced := s.prepared[query]; raced {
		_ = stmt.Close()
		return first, nil
	}
	s.prepared[query] = stmt
	return stmt, nil
}

// spareWait bounds how long the first use of a statement in a transaction waits for a connection.
const spareWait = 200 * time.Millisecond

// In returns the prepared statement for use inside tx. If it is not prepared yet and the pool has
// no spare connection, In prepares it for tx alone: waiting for a connection would be a deadlock if
// the holders of the connections wait for tx.
func (s *Statements) In(ctx context.Context, tx *sqlx.Tx, query string) (*sqlx.Stmt, error) {
	stmt := s.prepareSpare(ctx, query)
	if stmt == nil {
		own, err := tx.PreparexContext(ctx, kitMark+query)
		if err != nil {
			return nil, fmt.Errorf("prepare: %w", err)
		}
		return own, nil
	}
	return tx.StmtxContext(ctx, stmt), nil
}

// prepareSpare does the same as On, but returns nil if that would take long.
func (s *Statements) prepareSpare(ctx context.Context, query string) *sqlx.Stmt {
	s.mu.Lock()
	stmt, busy := s.prepared[query], s.preparing[query]
	pool := s.db.Stats()
	if stmt != nil || busy || pool.MaxOpenConnections > 0 && pool.InUse >= pool.MaxOpenConnections {
		s.mu.Unlock()
		return stmt
	}
	s.preparing[query] = true
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, spareWait)
	defer cancel()
	stmt, err := s.On(ctx, query)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.preparing, query)
	if err != nil {
		return nil // tx prepares the statement itself and returns the error
	}
	return stmt
}

// knownTypes returns the cached types of a table's columns, or nil if they must be read. A new
// generation, which follows a migration, clears the cache.
func (s *Statements) knownTypes(table string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if generation := s.generation(); generation != s.typesOf {
		clear(s.types)
		s.typesOf = generation
	}
	return s.types[table]
}

func (s *Statements) keepTypes(table string, types map[string]string, generation int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if generation == s.typesOf {
		s.types[table] = types
	}
}

// generation returns the current generation of the pool, or 0 for a pool that Open did not make.
func (s *Statements) generation() int64 {
	if p, ok := s.db.Driver().(*pool); ok {
		return p.generation.Load()
	}
	return 0
}

type statementsKey struct{}

// WithStatements returns a context in which Prepared finds s. Use it only with transactions of the
// same pool.
func WithStatements(ctx context.Context, s *Statements) context.Context {
	return context.WithValue(ctx, statementsKey{}, s)
}

// Queryer runs one statement, prepared or not.
type Queryer interface {
	Query(ctx context.Context, args ...any) (*sqlx.Rows, error)
	Exec(ctx context.Context, args ...any) (int64, error)
}

// Prepared returns a Queryer for query in tx. The statement is prepared if the context carries the
// Statements of the pool.
func Prepared(ctx context.Context, tx *sqlx.Tx, query string) (Queryer, error) {
	if s, ok := ctx.Value(statementsKey{}).(*Statements); ok {
		stmt, err := s.In(ctx, tx, query)
		return preparedStatement{stmt}, err
	}
	return unprepared{tx, query}, nil
}

type preparedStatement struct{ *sqlx.Stmt }

func (s preparedStatement) Query(ctx context.Context, args ...any) (*sqlx.Rows, error) {
	return s.QueryxContext(ctx, args...)
}

func (s preparedStatement) Exec(ctx context.Context, args ...any) (int64, error) {
	result, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

type unprepared struct {
	tx    *sqlx.Tx
	query string
}

func (t unprepared) Query(ctx context.Context, args ...any) (*sqlx.Rows, error) {
	return t.tx.QueryxContext(ctx, t.query, args...)
}

func (t unprepared) Exec(ctx context.Context, args ...any) (int64, error) {
	result, err := t.tx.ExecContext(ctx, t.query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}
