package pg_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/lib/pq/pqerror"

	"github.com/quadrille-go/quadrille/internal/pg"
)

func TestTransactionHasOneOfThreeOutcomes(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	exec(t, db, `CREATE TABLE x (n int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)`)
	insert := func(n int, then func(tx *sqlx.Tx) error) error {
		return pg.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
			exec(t, tx, `INSERT INTO x VALUES ($1)`, n)
			return then(tx)
		})
	}
	ownErr := errors.New("mine")
	must(t, insert(1, func(*sqlx.Tx) error { return nil }))
	if err := insert(2, func(*sqlx.Tx) error { return ownErr }); err != ownErr {
		t.Errorf("an error of f came back as %v", err)
	}
	// The server checks the constraint at the commit, refuses it and rolls back.
	if err := insert(1, func(*sqlx.Tx) error { return nil }); err == nil ||
		errors.Is(err, pg.ErrUnknownOutcome) || !pg.IsUniqueViolation(err) {
		t.Errorf("a commit that was refused: %v", err)
	}
	// A failed transaction cannot be committed, even if f hides the error.
	err := insert(3, func(tx *sqlx.Tx) error { _, _ = tx.Exec(`SELECT 1/0`); return nil })
	if err == nil || errors.Is(err, pg.ErrUnknownOutcome) {
		t.Errorf("a hidden error: %v", err)
	}
	// The session is gone, so the outcome is unknown.
	err = insert(4, func(tx *sqlx.Tx) error {
		exec(t, db, `SELECT pg_terminate_backend($1, 5000)`, count(t, tx, `SELECT pg_backend_pid()`))
		return nil
	})
	if !errors.Is(err, pg.ErrUnknownOutcome) || pg.ClassOf(err) != pg.Lost {
		t.Errorf("a lost commit: %v (class %d)", err, pg.ClassOf(err))
	}
	func() {
		defer func() { _ = recover() }()
		_ = insert(5, func(*sqlx.Tx) error { panic("f") })
	}()
	ctx, cancel := context.WithCancel(t.Context())
	err = pg.InTx(ctx, db, func(tx *sqlx.Tx) error {
		exec(t, tx,
			`INSERT INTO x VALUES (6)`)
		cancel()
		return nil
	})
	if err == nil {
		t.Error("committed after the context had ended")
	}
	if n := count(t, db, `SELECT sum(n) FROM x`); n != 1 {
		t.Errorf("sum %d of what is committed", n)
	}
}

func TestClasses(t *testing.T) {
	t.Parallel()
	state := func(code string) error {
		return fmt.Errorf("insert: %w", &pq.Error{Code: pqerror.Code(code)})
	}
	for name, c := range map[string]struct {
		err  error
		want pg.Class
	}{
		"nothing":       {nil, pg.Other},
		"serialization": {state("40001"), pg.Retry},
		"deadlock":      {state("40P01"), pg.Retry},
		"raced":         {fmt.Errorf("save: %w", pg.ErrRaced), pg.Retry},
		"lock":          {state("55P03"), pg.Busy},
		"statement":     {state("57014"), pg.Busy},
		"connections":   {state("53300"), pg.Busy},
		"disk":          {state("53100"), pg.Busy},
		"read-only":     {state("25006"), pg.Lost},
		"shut down":     {state("57P01"), pg.Lost},
		"idle session":  {state("57P05"), pg.Lost},
		"connection":    {state("08006"), pg.Lost},
		"EOF":           {fmt.Errorf("read: %w", io.EOF), pg.Lost},
		"network":       {&net.OpError{Op: "dial", Err: errors.New("refused")}, pg.Lost},
		"unknown":       {pg.ErrUnknownOutcome, pg.Lost},
		"bad text":      {state("22021"), pg.BadData},
		"too wide":      {state("54000"), pg.BadData},
		"syntax":        {state("42601"), pg.Other},
		"unique":        {state("23505"), pg.Other},
		"cancelled":     {context.Canceled, pg.Other},
		"our deadline":  {context.DeadlineExceeded, pg.Other},
		"another error": {errors.New("x"), pg.Other},
	} {
		if got := pg.ClassOf(c.err); got != c.want {
			t.Errorf("%s: class %d, want %d", name, got, c.want)
		}
	}
}

// Two transactions use all connections of the pool. One of them uses a statement for the first time
// and holds a lock that the other waits for; it must not wait for a third connection.
func TestFirstUseOfAStatementNeedsNoSpareConnection(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	db.SetMaxOpenConns(2)
	statements := pg.NewStatements(db)
	ctx := pg.WithStatements(t.Context(), statements)
	first, err := db.BeginTxx(ctx, nil)
	must(t, err)
	exec(t, first, `SELECT pg_advisory_xact_lock(1)`)
	second, err := db.BeginTxx(ctx, nil)
	must(t, err)
	waiting := make(chan error, 1)
	go func() {
		_, err := second.Exec(`SELECT pg_advisory_xact_lock(1)`)
		waiting <- errors.Join(err, second.Commit())
	}()
	q, err := pg.Prepared(ctx, first, `SELECT $1::int`)
	must(t, err)
	_, err = q.Exec(ctx, 7)
	must(t, err)
	must(t, first.Commit())
	must(t, <-waiting)
	must(t, pg.InTx(ctx, db, func(tx *sqlx.Tx) error { // now the pool has a spare connection
		q, err := pg.Prepared(ctx, tx, `SELECT $1::int`)
		must(t, err)
		_, err = q.Exec(ctx, 7)
		return err
	}))
	before := count(t, db, `SELECT count(*) FROM pg_prepared_statements
		WHERE statement LIKE '%SELECT $1::int'`)
	if before == 0 {
		t.Error("the statement is not kept prepared")
	}
}
