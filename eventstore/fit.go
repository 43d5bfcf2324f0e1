package eventstore

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/postgres"
)

// storeSQL names the table of events that this database has, for the column store.
const storeSQL = `(SELECT format('%s/%s', oid, 'eventstore'::regclass::oid) FROM pg_database
	WHERE datname = current_database())`

// unfitSQL tells why projections do not fit the events in this database, or nothing.
const unfitSQL = `
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
		THEN 'a projection has an event that is not stored, or not as it was'
	ELSE '' END`

// unfit tells why projections do not fit the events. It is cheap, and true at any time: a database
// may be restored under replicas that run.
func unfit(ctx context.Context, q sqlx.QueryerContext) (why string, err error) {
	err = sqlx.GetContext(ctx, q, &why, unfitSQL)
	return why, wrap("compare projections with the events", err)
}

// fit lets all projections begin again where one does not fit: what they have may never have
// happened. Tables and views stay, with what others have made of them.
func (p *Projector) fit(ctx context.Context, tx *sqlx.Tx) error {
	// The restored rows are looked at before this transaction has an id.
	if _, err := tx.ExecContext(ctx,
		`LOCK TABLE eventstore_projections IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return err
	}
	why, err := unfit(ctx, tx)
	if err != nil || why == "" {
		return err
	}
	p.Log.Warn().Str("why", why).Msg("projections do not fit the stored events: all of them are " +
		"filled from the beginning")
	// It reads all facts once.
	if _, err := tx.ExecContext(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
		return err
	}
	if err := log.Pieces(ctx, tx, func(from, to int64) error {
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
		if err := g.empty(ctx, tx, why); err != nil {
			return fmt.Errorf("empty %s: %w", g.table(), err)
		}
	}
	return nil
}

// empty lets a generation begin again. One whose table was not restored is forgotten.
func (g generation) empty(ctx context.Context, tx *sqlx.Tx, why string) error {
	var there bool
	if err := tx.GetContext(ctx, &there, `SELECT to_regclass($1) IS NOT NULL`, g.table()); err != nil {
		return err
	}
	if !there {
		_, err := tx.ExecContext(ctx, `DELETE FROM eventstore_projections WHERE name = $1
			AND generation = $2`, g.Name, g.Generation)
		return err
	}
	if _, err := tx.ExecContext(ctx, `SET LOCAL lock_timeout = '`+showWait+`'; TRUNCATE `+
		g.table()); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `UPDATE eventstore_projections SET a = $3::pg_snapshot,
		b = $3::pg_snapshot, last_seq = 0, done = 0,
		started_at = now(), mark_seq = 0, mark_hash = NULL, note = $4, error = '', store = `+storeSQL+`,
		system = (SELECT system_identifier::text FROM pg_control_system())
		WHERE name = $1 AND generation = $2`,
		g.Name, g.Generation, string(postgres.Beginning), why)
	if err == nil && g.Live { // a view may not have been restored
		err = show(ctx, tx, g.Name, g.Generation)
	}
	return err
}

// refit is what Prepare does, by the leader.
func (p *Projector) refit(ctx context.Context, lead *postgres.Lead) error {
	return wrap("fit projections", lead.Tx(ctx,
		func(tx postgres.Fenced) error { return p.prepare(ctx, tx.Tx()) }))
}
