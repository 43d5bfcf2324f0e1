package postgres

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

// Class says what an error of the database calls for.
type Class int

const (
	// not an error of the database, or a mistake in the SQL: it will not heal by itself
	Other Class = iota
	// run the transaction again at once: somebody else was first, a deadlock was broken, a statement
	// was outdated
	Retry
	// run it again after a wait: a lock or a statement took too long, resources ran out
	Busy
	Lost    // the connection or the server is gone, or it went read-only
	BadData // the value itself is refused: it will be refused again
)

// ErrRaced is wrapped by errors that come from another transaction having inserted the same row
// first. Its class is Retry.
var ErrRaced = errors.New("another transaction was first")

// ClassOf classifies err by its SQLSTATE, or by its being a failure of the connection.
func ClassOf(err error) Class {
	if err == nil {
		return Other
	}
	if errors.Is(err, ErrRaced) || errors.As(err, new(outdatedError)) {
		return Retry
	}
	if answer := answerOf(err); answer != nil {
		if outdated(answer) {
			return Retry
		}
		return classOfState(string(answer.Code))
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

// classOf returns the first two characters of a SQLSTATE, or what there is of them: a server, or
// what stands in its place, may send anything.
func classOf(state string) string { return state[:min(2, len(state))] }

// answerOf returns what the server answered, or nil when err is no answer of a server.
func answerOf(err error) *pq.Error {
	answer, _ := errors.AsType[*pq.Error](err)
	return answer
}

// IsUniqueViolation tells whether err is SQLSTATE 23505.
func IsUniqueViolation(err error) bool {
	var answer *pq.Error
	return errors.As(err, &answer) && answer.Code == "23505"
}

// Alive returns nil when the database answers on a working connection, a fresh one if those of the
// pool are broken, and can be written: it tells a broken database from a broken piece of work. It
// takes at most five seconds, also on a line that has gone silent, on which the driver goes on
// waiting.
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
	case err := <-answered: // it has better words for it
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
		if p, ok := db.Driver().(*pool); ok { // the setting that lifts it may be for new sessions only
			p.generation.Add(1)
		}
		return fmt.Errorf("probe database: %w", errReadOnly)
	}
	return nil
}
