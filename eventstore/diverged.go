package eventstore

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// storeSQL identifies the database and its table of events, for the column store.
const storeSQL = `(SELECT format('%s/%s', oid, 'eventstore'::regclass::oid) FROM pg_database
	WHERE datname = current_database())`

// divergedSQL returns why projections do not match the events in this database, or an empty text.
// A dump that is restored elsewhere has the same rows, but its transaction ids mean nothing there.
// A restore of single tables, or a copy of the disk, is found by what the checkpoint says of the
// store.
const divergedSQL = `
SELECT CASE
	WHEN EXISTS (SELECT FROM eventstore_projections AS p, pg_control_system() AS c
		WHERE p.system <> c.system_identifier::text)
		THEN 'the database was moved to another cluster'
	WHEN EXISTS (SELECT FROM eventstore_projections WHERE store NOT IN ('', ` + storeSQL + `))
		THEN 'the events were restored'
	WHEN EXISTS (SELECT FROM eventstore_projections
			WHERE pg_snapshot_xmax(b) > pg_snapshot_xmax(pg_current_snapshot()))
		THEN 'a projection is ahead of the transaction ids of this cluster'
	WHEN coalesce((SELECT txid >= pg_snapshot_xmax(pg_current_snapshot())
			FROM eventstore ORDER BY txid DESC LIMIT 1), false)
		THEN 'events have transaction ids of another cluster'
	WHEN EXISTS (SELECT FROM eventstore_projections AS p WHERE mark_hash IS NOT NULL
			AND NOT EXISTS (SELECT FROM eventstore AS e WHERE e.seq = p.mark_seq AND e.hash = p.mark_hash))
		THEN 'a projection has an event that is no longer stored, or was changed'
	ELSE '' END`

// diverged returns why projections do not match the events, or "". It is cheap, so that the leader
// can call it all the time: a database may be restored while replicas run.
func diverged(ctx context.Context, q sqlx.QueryerContext) (why string, err error) {
	err = sqlx.GetContext(ctx, q, &why, divergedSQL)
	return why, wrap("compare projections with the events", err)
}

// resetIfDiverged resets all projections if one of them does not match the events, since their rows
// may come from events that no longer exist. Tables and views stay, with their grants and the
// objects that depend on them.
func (p *Projector) resetIfDiverged(ctx context.Context, tx *sqlx.Tx) error {
	// diverged compares transaction ids, so it must run before this transaction has an id.
	if _, err := tx.ExecContext(ctx,
		`LOCK TABLE eventstore_projections IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return err
	}
	why, err := diverged(ctx, tx)
	if err != nil || why == "" {
		return err
	}
	p.Log.Warn().Str("why", why).Msg("projections do not match the stored events: all of them are " +
		"refilled from the beginning")
	// The update below touches all facts once. Transaction id 3 is the first that a cluster assigns,
	// so it is settled in every snapshot, and a window from the beginning contains all facts again.
	if _, err := tx.ExecContext(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
		return err
	}
	if err := eventLog.Pieces(ctx, tx, func(from, to int64) error {
		_, err := tx.ExecContext(ctx, `UPDATE eventstore SET txid = '3' WHERE seq >= $1 AND seq < $2`,
			from, to)
		return err
	}); err != nil {
		return err
	}
	var old []generation
	if err := tx.SelectContext(ctx, &old, generations); err != nil {
		return err
	}
	for _, g := range old {
		if err := g.reset(ctx, tx, why); err != nil {
			return fmt.Errorf("reset %s: %w", g.table(), err)
		}
	}
	return nil
}

// reset empties a generation and returns it to the beginning. A generation whose table does not
// exist, since it was not restored, is deleted.
func (g generation) reset(ctx context.Context, tx *sqlx.Tx, why string) error {
	var existing bool
	if err := tx.GetContext(ctx, &existing, `SELECT to_regclass($1) IS NOT NULL`,
		g.table()); err != nil {
		return err
	}
	if !existing {
		_, err := tx.ExecContext(ctx, `DELETE FROM eventstore_projections WHERE name = $1
			AND generation = $2`, g.Name, g.Generation)
		return err
	}
	if _, err := tx.ExecContext(ctx, `SET LOCAL lock_timeout = '`+switchLockTimeout+`'; TRUNCATE `+
		g.table()); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `UPDATE eventstore_projections SET a = $3::pg_snapshot,
		b = $3::pg_snapshot, last_seq = 0, done = 0,
		started_at = now(), mark_seq = 0, mark_hash = NULL, note = $4, error = '', store = `+storeSQL+`,
		system = (SELECT system_identifier::text FROM pg_control_system())
		WHERE name = $1 AND generation = $2`,
		g.Name, g.Generation, string(pg.Beginning), why)
	if err == nil && g.Live { // the view may not have been restored
		err = switchView(ctx, tx, g.Name, g.Generation)
	}
	return err
}

// prepareAsLeader does the same as Prepare, in a transaction of the leader.
func (p *Projector) prepareAsLeader(ctx context.Context, lead *pg.Lead) error {
	return wrap("reset projections", lead.Tx(ctx,
		func(tx pg.Fenced) error { return p.prepare(ctx, tx.Tx()) }))
}
