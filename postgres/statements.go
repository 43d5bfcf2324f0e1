package postgres

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
	preparing map[string]bool              // see spare
	types     map[string]map[string]string // see ColumnTypes
	typesOf   int64                        // the generation of the pool in which they were read
}

// NewStatements returns an empty cache for db. Use it for a fixed set of statements: it never
// forgets one.
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

// spareWait is how long the first use of a statement inside a transaction waits for a connection.
const spareWait = 200 * time.Millisecond

// In returns the prepared statement for use inside tx. Where it is not prepared yet and the pool
// has no connection to spare, it is prepared for tx alone: to wait for a connection would be a
// deadlock when those who have one wait for tx.
func (s *Statements) In(ctx context.Context, tx *sqlx.Tx, query string) (*sqlx.Stmt, error) {
	stmt := s.spare(ctx, query)
	if stmt == nil {
		alone, err := tx.PreparexContext(ctx, kitMark+query)
		if err != nil {
			return nil, fmt.Errorf("prepare: %w", err)
		}
		return alone, nil
	}
	return tx.StmtxContext(ctx, stmt), nil
}

// spare is On unless that would take long; then it returns nil.
func (s *Statements) spare(ctx context.Context, query string) *sqlx.Stmt {
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
		return nil // whatever it is, tx will say it
	}
	return stmt
}

// knownTypes returns the types of a table's columns, or nil when they must be read: a migration
// that outdates what is prepared outdates them as well.
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

// generation is that of the sessions of a pool that Open has made.
func (s *Statements) generation() int64 {
	if p, ok := s.db.Driver().(*pool); ok {
		return p.generation.Load()
	}
	return 0
}

type statementsKey struct{}

// WithStatements returns a context in which Prepared finds s. It must only be used with
// transactions of the same pool.
func WithStatements(ctx context.Context, s *Statements) context.Context {
	return context.WithValue(ctx, statementsKey{}, s)
}

// Queryer is what both a transaction and a prepared statement are used through.
type Queryer interface {
	Query(ctx context.Context, args ...any) (*sqlx.Rows, error)
	Exec(ctx context.Context, args ...any) (int64, error)
}

// Prepared returns query ready to run in tx: prepared when the context carries the statements of
// tx's pool, as it is otherwise.
func Prepared(ctx context.Context, tx *sqlx.Tx, query string) (Queryer, error) {
	if s, ok := ctx.Value(statementsKey{}).(*Statements); ok {
		stmt, err := s.In(ctx, tx, query)
		return statement{stmt}, err
	}
	return text{tx, query}, nil
}

type statement struct{ *sqlx.Stmt }

func (s statement) Query(ctx context.Context, args ...any) (*sqlx.Rows, error) {
	return s.QueryxContext(ctx, args...)
}

func (s statement) Exec(ctx context.Context, args ...any) (int64, error) {
	result, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

type text struct {
	tx    *sqlx.Tx
	query string
}

func (t text) Query(ctx context.Context, args ...any) (*sqlx.Rows, error) {
	return t.tx.QueryxContext(ctx, t.query, args...)
}

func (t text) Exec(ctx context.Context, args ...any) (int64, error) {
	result, err := t.tx.ExecContext(ctx, t.query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}
