package pg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Class tells the caller how to react to an error of the database.
type Class int

const (
	// Other is not an error of the database, or it is a mistake in the SQL: a retry does not help.
	Other Class = iota
	// Retry means that the transaction can run again at once: another transaction was first,
	// a deadlock was broken, or a statement was outdated.
	Retry
	// Busy means that the transaction can run again after a wait: a lock or a statement took too
	// long, or resources ran out.
	Busy
	// Lost means that the connection or the server is gone, or that the server became read-only.
	Lost
	// BadData means that the server refuses the value itself, and will refuse it again.
	BadData
)

// ErrRaced means that another transaction inserted the same row first. Its class is Retry.
var ErrRaced = errors.New("another transaction was first")

// ClassOf classifies err by its SQLSTATE, and a failure of the connection by its type.
func ClassOf(err error) Class {
	if err == nil {
		return Other
	}
	if errors.Is(err, ErrRaced) || errors.As(err, new(outdatedError)) {
		return Retry
	}
	if pgErr := serverError(err); pgErr != nil {
		if outdated(pgErr) {
			return Retry
		}
		return classOfState(string(pgErr.Code))
	}
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Other
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, ErrUnknownOutcome), errors.As(err, &network):
		return Lost
	}
	return Other
}

func classOfState(state string) Class {
	switch state {
	case "40001", "40P01": // serialization failure, deadlock
		return Retry
	case "55P03", "57014", "25P03": // lock or statement time-out, idle in transaction
		return Busy
	// read-only, shut down, crashed, starting up, idle session
	case "25006", "57P01", "57P02", "57P03", "57P05":
		return Lost
	}
	switch classOf(state) {
	case "08": // connection
		return Lost
	case "53", "58", "XX": // out of resources, the system's I/O, internal
		return Busy
	case "22", "54": // data, program limits
		return BadData
	}
	return Other
}

// classOf returns the first two characters of a SQLSTATE, or fewer if it is shorter: a pooler or
// a faulty server may send any text.
func classOf(state string) string { return state[:min(2, len(state))] }

// serverError returns the error that the server sent, or nil if err did not come from a server.
func serverError(err error) *pq.Error {
	pgErr, _ := errors.AsType[*pq.Error](err)
	return pgErr
}

// IsUniqueViolation reports whether err has SQLSTATE 23505.
func IsUniqueViolation(err error) bool {
	var pgErr *pq.Error
	return errors.As(err, &pgErr) && pgErr.Code == "23505"
}

// Alive returns nil if the database answers and accepts writes. It uses a new connection if those
// of the pool are broken. A caller whose work has failed learns from it whether the database or the
// work is at fault. It takes at most five seconds, also on a connection that has become silent,
// where the driver itself would continue to wait.
func Alive(ctx context.Context, db *sqlx.DB) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	answered := make(chan error, 1)
	go func() {
		defer cancel()
		answered <- alive(ctx, db)
	}()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-answered: // its error says more than the time-out does
		return err
	default:
		return fmt.Errorf("probe database: %w", ctx.Err())
	}
}

func alive(ctx context.Context, db *sqlx.DB) error {
	var is struct{ Standby, ReadOnly bool }
	err := db.GetContext(ctx, &is, `SELECT pg_is_in_recovery() AS standby,
		current_setting('transaction_read_only')::bool AS readonly`)
	switch {
	case err != nil:
		return fmt.Errorf("probe database: %w", err)
	case is.Standby:
		return fmt.Errorf("probe database: %w", errStandby)
	case is.ReadOnly:
		if p, ok := db.Driver().(*pool); ok {
			// The setting that permits writes again may apply to new sessions only.
			p.generation.Add(1)
		}
		return fmt.Errorf("probe database: %w", errReadOnly)
	}
	return nil
}
