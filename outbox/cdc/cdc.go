// Package cdc streams the outbox out of PostgreSQL's write-ahead log. It uses logical replication
// with the output plugin pgoutput, and is a second source for the relay. It suits a service whose
// database has logical replication anyway, or on which the relay must not poll the outbox. The
// window of package outbox needs neither privileges nor a slot.
//
// It promises that no committed row is missing from the stream, and that the hand-over from the
// window is exact: the slot is created at a snapshot, the window goes on to that snapshot, and the
// stream delivers the rows after it.
//
// It needs wal_level = logical and a role with REPLICATION. While no relay streams, the server
// keeps its log for the slot; set max_slot_wal_keep_size to bound it. With synchronous standbys the
// stream may deliver an event before the standbys have confirmed its transaction. The window never
// does that.
package cdc

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox"
)

// The bounds of a session.
const (
	connectTimeout = 5 * time.Second
	senderTimeout  = 10 * time.Second // after it the server ends the session of a stopped process
	resumePatience = 2 * time.Second  // for the former session to release the slot
	resumePoll     = 100 * time.Millisecond
	publication    = "quadrille_outbox"
)

// ErrNotLogical says that the server or the role lacks a setting for logical replication. The error
// that wraps it contains the statement that changes the setting.
var ErrNotLogical = errors.New("the server is not set up for logical replication")

// Source streams the outbox of one database.
type Source struct {
	URL string // of the database, with a role that has REPLICATION and owns the outbox
	DB  *sqlx.DB
	Log zerolog.Logger
}

// For returns the value for the field Stream of a quadrille.Service, which calls it with the
// database that the service opens.
func For(url string, log zerolog.Logger) func(db *sqlx.DB) outbox.Source {
	return func(db *sqlx.DB) outbox.Source { return Source{URL: url, DB: db, Log: log} }
}

// slot returns the name of the replication slot. Slots of all databases of a server share one
// namespace, so the name contains a hash of the database's name. The database's name itself may be
// too long, or have characters that the name of a slot must not have.
func (s Source) slot(ctx context.Context) (string, error) {
	var database string
	if err := s.DB.GetContext(ctx, &database, `SELECT current_database()`); err != nil {
		return "", fmt.Errorf("name the slot: %w", err)
	}
	sum := sha256.Sum256([]byte(database))
	return "quadrille_outbox_" + hex.EncodeToString(sum[:8]), nil
}

// Begin replaces the slot by a new one at the snapshot that it returns. The server creates a slot
// only after the running transactions have ended, and Begin waits for that.
func (s Source) Begin(ctx context.Context) (outbox.Stream, pg.Snapshot, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, "", err
	}
	slot, err := s.slot(ctx)
	if err != nil {
		return nil, "", err
	}
	// The old slot is dropped even if no new one can be created: the server keeps its log for it.
	if err := s.Drop(ctx); err != nil {
		return nil, "", err
	}
	if err := s.refuseStandby(ctx, slot); err != nil {
		return nil, "", err
	}
	conn, err := s.connect(ctx, slot)
	if err != nil {
		return nil, "", err
	}
	snapshot, err := createSlot(ctx, conn, slot)
	if err == nil {
		var stream *stream
		if stream, err = startStream(ctx, conn, slot); err == nil {
			s.Log.Info().Str("slot", slot).Msg("replication slot created")
			return stream, snapshot, nil
		}
	}
	_ = conn.Close(context.WithoutCancel(ctx))
	return nil, "", fmt.Errorf("begin stream: %w", err)
}

// createSlot creates the slot and returns its snapshot. USE_SNAPSHOT gives the slot's snapshot to
// the transaction that creates the slot, and only that transaction can read it.
func createSlot(ctx context.Context, conn *pgconn.PgConn, slot string) (pg.Snapshot, error) {
	const begin = `BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ`
	if _, err := conn.Exec(ctx, begin).ReadAll(); err != nil {
		return "", err
	}
	options := pglogrepl.CreateReplicationSlotOptions{Mode: pglogrepl.LogicalReplication,
		SnapshotAction: "USE_SNAPSHOT"}
	if _, err := pglogrepl.CreateReplicationSlot(ctx, conn, slot, "pgoutput", options); err != nil {
		return "", fmt.Errorf("create slot: %w", err)
	}
	results, err := conn.Exec(ctx, `SELECT pg_current_snapshot()::text; COMMIT`).ReadAll()
	if err != nil {
		return "", fmt.Errorf("read the slot's snapshot: %w", err)
	}
	return pg.Snapshot(results[0].Rows[0][0]), nil
}

// Resume continues after the position that was confirmed last.
func (s Source) Resume(ctx context.Context) (outbox.Stream, error) {
	slot, err := s.slot(ctx)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(resumePatience); ; {
		state, err := s.State(ctx)
		if err != nil {
			return nil, err
		}
		if state.State == "" || state.State == "lost" {
			return nil, fmt.Errorf("%w: slot %s: %s", outbox.ErrNoCheckpoint, slot,
				cmp.Or(state.State, "it does not exist"))
		}
		if !state.Active {
			break
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("resume stream: another session uses slot %s", slot)
		}
		if err := pause(ctx, resumePoll); err != nil {
			return nil, err
		}
	}
	if err := s.checkSlot(ctx, slot); err != nil {
		return nil, err
	}
	if err := s.refuseStandby(ctx, slot); err != nil {
		return nil, err
	}
	conn, err := s.connect(ctx, slot)
	if err != nil {
		return nil, err
	}
	stream, err := startStream(ctx, conn, slot)
	if err != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("resume stream: %w", err)
	}
	return stream, nil
}

// checkSlot refuses a slot whose confirmed position lies beyond the end of the log, as after a
// restore to an earlier time, and a publication that does not contain the table.
func (s Source) checkSlot(ctx context.Context, slot string) error {
	var fits bool
	err := s.DB.GetContext(ctx, &fits,
		`SELECT confirmed_flush_lsn <= pg_current_wal_insert_lsn() AND `+publishedSQL+`
		FROM pg_replication_slots WHERE slot_name = $2`, publication, slot)
	if err != nil {
		return fmt.Errorf("check slot %s: %w", slot, err)
	}
	if !fits {
		return fmt.Errorf("%w: slot %s or its publication does not belong to this outbox",
			outbox.ErrNoCheckpoint, slot)
	}
	return nil
}

// Drop drops the slot, if there is one.
func (s Source) Drop(ctx context.Context) error {
	slot, err := s.slot(ctx)
	if err != nil {
		return err
	}
	_, err = s.DB.ExecContext(ctx, `SELECT pg_drop_replication_slot(slot_name)
		FROM pg_replication_slots WHERE slot_name = $1`, slot)
	if err != nil {
		return fmt.Errorf("drop slot %s: %w", slot, err)
	}
	return nil
}

// State returns the state of the slot. Its Fault wraps ErrStandby.
func (s Source) State(ctx context.Context) (outbox.SlotState, error) {
	slot, err := s.slot(ctx)
	if err != nil {
		return outbox.SlotState{}, err
	}
	var found []struct {
		State  string `db:"state"`
		Active bool   `db:"active"`
		Lag    int64  `db:"lag"`
	}
	err = s.DB.SelectContext(ctx, &found, `SELECT coalesce(wal_status, 'lost') AS state, active,
		coalesce(pg_current_wal_lsn() - confirmed_flush_lsn, 0)::bigint AS lag FROM pg_replication_slots
			WHERE slot_name = $1`, slot)
	state := outbox.SlotState{Name: slot}
	if err != nil {
		return state, fmt.Errorf("read state of slot %s: %w", slot, err)
	}
	state.Fault = s.refuseStandby(ctx, slot)
	if state.Fault != nil && !errors.Is(state.Fault, ErrStandby) {
		return state, state.Fault
	}
	for _, f := range found {
		state.State, state.Active, state.LagBytes = f.State, f.Active, f.Lag
	}
	return state, nil
}
