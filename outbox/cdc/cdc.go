// Package cdc streams the outbox out of PostgreSQL's own log: logical replication with pgoutput, as
// a second source for the relay. It is for those who have it running already, or who want no query
// against the outbox; the window of package outbox needs neither privileges nor a slot.
//
// It promises that no committed row is missing from the stream and that the hand-over from the
// window is exact: a slot is made at a snapshot, the window goes on to that snapshot, and the
// stream has what comes after it. It needs wal_level = logical and a role with REPLICATION. While
// nobody streams, the server keeps its log for the slot: set max_slot_wal_keep_size. The stream has
// what is in the server's own log: with synchronous standbys an event may be out before they have
// confirmed its transaction, which the window never does.
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

	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/postgres"
)

// The bounds of a session.
const (
	connectTimeout = 5 * time.Second
	senderTimeout  = 10 * time.Second // a stopped process keeps the slot no longer
	resumePatience = 2 * time.Second  // for the session before to let the slot go
	resumePoll     = 100 * time.Millisecond
	publication    = "quadrille_outbox"
)

// ErrNotLogical says that the server is not set up for logical replication, and how to do that.
var ErrNotLogical = errors.New("the server is not set up for logical replication")

// Source is the stream of one database's outbox.
type Source struct {
	URL string // of the database, with a role that has REPLICATION and owns the outbox
	DB  *sqlx.DB
	Log zerolog.Logger
}

// For returns what a quadrille.Service takes: the stream of the database that it opens.
func For(url string, log zerolog.Logger) func(db *sqlx.DB) outbox.Source {
	return func(db *sqlx.DB) outbox.Source { return Source{URL: url, DB: db, Log: log} }
}

// slot is the name of the replication slot; slots of all databases of a server share their names.
func (s Source) slot(ctx context.Context) (string, error) {
	var database string
	if err := s.DB.GetContext(ctx, &database, `SELECT current_database()`); err != nil {
		return "", fmt.Errorf("name the slot: %w", err)
	}
	sum := sha256.Sum256([]byte(database))
	return "quadrille_outbox_" + hex.EncodeToString(sum[:8]), nil
}

// Begin makes a new slot in place of an old one, at the snapshot that it returns. It waits for the
// transactions that are running.
func (s Source) Begin(ctx context.Context) (outbox.Stream, postgres.Snapshot, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, "", err
	}
	slot, err := s.slot(ctx)
	if err != nil {
		return nil, "", err
	}
	// also when there will be no other: the server keeps its log for it
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
			s.Log.Info().Str("slot", slot).Msg("replication slot made")
			return stream, snapshot, nil
		}
	}
	_ = conn.Close(context.WithoutCancel(ctx))
	return nil, "", fmt.Errorf("begin to stream: %w", err)
}

// createSlot makes the slot and returns its snapshot, from inside of the transaction that the server
// has given that snapshot to.
func createSlot(ctx context.Context, conn *pgconn.PgConn, slot string) (postgres.Snapshot, error) {
	if _,
		err := conn.Exec(ctx, `BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ`).ReadAll(); err != nil {
		return "", err
	}
	options := pglogrepl.CreateReplicationSlotOptions{Mode: pglogrepl.LogicalReplication,
		SnapshotAction: "USE_SNAPSHOT"}
	if _, err := pglogrepl.CreateReplicationSlot(ctx, conn, slot, "pgoutput", options); err != nil {
		return "", fmt.Errorf("make slot: %w", err)
	}
	results, err := conn.Exec(ctx, `SELECT pg_current_snapshot()::text; COMMIT`).ReadAll()
	if err != nil {
		return "", fmt.Errorf("take the slot's snapshot: %w", err)
	}
	return postgres.Snapshot(results[0].Rows[0][0]), nil
}

// Resume goes on at the place that was confirmed last.
func (s Source) Resume(ctx context.Context) (outbox.Stream, error) {
	slot, err := s.slot(ctx)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(resumePatience); ; {
		w, err := s.State(ctx)
		if err != nil {
			return nil, err
		}
		if w.State == "" || w.State == "lost" {
			return nil, fmt.Errorf("%w: slot %s: %s", outbox.ErrNoCheckpoint, slot,
				cmp.Or(w.State, "there is none"))
		}
		if !w.Active {
			break
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("slot %s is in use by another session", slot)
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
		return nil, fmt.Errorf("resume the stream: %w", err)
	}
	return stream, nil
}

// checkSlot refuses a slot whose place lies beyond the log, as after a restore to an earlier time, and
// a publication without the table.
func (s Source) checkSlot(ctx context.Context, slot string) error {
	var fits bool
	err := s.DB.GetContext(ctx, &fits,
		`SELECT confirmed_flush_lsn <= pg_current_wal_insert_lsn() AND `+publishedSQL+`
		FROM pg_replication_slots WHERE slot_name = $2`, publication, slot)
	if err != nil {
		return fmt.Errorf("look at slot %s: %w", slot, err)
	}
	if !fits {
		return fmt.Errorf("%w: slot %s, or its publication, is not that of this outbox",
			outbox.ErrNoCheckpoint, slot)
	}
	return nil
}

// Drop gives the slot up. There need not be one.
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

// State tells how the slot fares.
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
	w := outbox.SlotState{Name: slot}
	if err != nil {
		return w, fmt.Errorf("watch slot %s: %w", slot, err)
	}
	if w.Fault = s.refuseStandby(ctx, slot); w.Fault != nil && !errors.Is(w.Fault, ErrStandby) {
		return w, w.Fault
	}
	for _, f := range found {
		w.State, w.Active, w.LagBytes = f.State, f.Active, f.Lag
	}
	return w, nil
}
