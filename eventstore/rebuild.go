package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// Progress is the progress of a generation of a projection.
type Progress struct {
	Name       string    `db:"name" json:"name"`
	Generation int       `db:"generation" json:"generation"`
	Version    int       `db:"version" json:"version"`
	Live       bool      `db:"live" json:"live"` // readers see it; otherwise it is being built
	Done       int64     `db:"done" json:"done"` // applied facts
	Of         int64     `db:"of" json:"of"`     // all stored facts, or a few more
	StartedAt  time.Time `db:"started_at" json:"started_at"`
	Note       string    `db:"note" json:"note,omitempty"`   // why it was reset to the beginning
	Error      string    `db:"error" json:"error,omitempty"` // why it makes no progress
}

// switchLockTimeout bounds how long readers wait while the view is switched to another table.
const switchLockTimeout = "200ms"

// Prepare creates the tables and views of new projections, and begins to rebuild projections of
// another version. In a database that was restored, or moved to another cluster, it resets all
// projections, as Run does. Call it before Run; replicas may call it at the same time.
func (p *Projector) Prepare(ctx context.Context) error {
	err := pg.InTx(ctx, p.DB, func(tx *sqlx.Tx) error { return p.prepare(ctx, tx) })
	return wrap("prepare projections", err)
}

func (p *Projector) prepare(ctx context.Context, tx *sqlx.Tx) error {
	if err := p.resetIfDiverged(ctx, tx); err != nil {
		return fmt.Errorf("compare them with the events: %w", err)
	}
	for _, projection := range p.Projections {
		if err := projection.check(); err != nil {
			return err
		}
		if err := prepare(ctx, tx, projection); err != nil {
			return fmt.Errorf("%s: %w", projection.Name, err)
		}
	}
	return nil
}

func prepare(ctx context.Context, tx *sqlx.Tx, projection Projection) error {
	var existing []generation
	if err := tx.SelectContext(ctx, &existing, generations+` WHERE name = $1 ORDER BY generation DESC`,
		projection.Name); err != nil {
		return err
	}
	switch {
	case len(existing) == 0:
		number := 1 // or a higher one, if the table of an earlier generation still exists
		if err := tx.GetContext(ctx, &number, `SELECT 1 + coalesce(max(substring(relname
			FROM '[0-9]{1,9}$')::int), 0) FROM pg_class
			WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
				AND relname ~ ('^' || $1 || '_[0-9]{1,9}$')`, projection.Name); err != nil {
			return err
		}
		if err := createGeneration(ctx, tx, projection, number, true); err != nil {
			return err
		}
		return switchView(ctx, tx, projection.Name, number)
	// A later version belongs to a newer release, from which the service may have been downgraded.
	case existing[0].Version >= projection.Version:
		return nil
	}
	// Unlike Rebuild, this does not check whether the view can be switched: a service must start
	// even if it cannot.
	_, err := beginRebuild(ctx, tx, projection, existing)
	return err
}

// createGeneration creates the table of a generation and sets its checkpoint to the beginning. It
// stores which server and which event store the checkpoint belongs to, since snapshots mean nothing
// in another one.
func createGeneration(ctx context.Context, tx *sqlx.Tx, projection Projection, number int,
	live bool) error {
	if _, err := tx.ExecContext(ctx, `CREATE TABLE `+tableOf(projection.Name, number)+` (`+
		projection.Columns+`)`); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO eventstore_projections (name, generation, version, live,
		system, store, a, b, last_seq, done)
		SELECT $1, $2, $3, $4, system_identifier::text, `+storeSQL+
		`, $5::pg_snapshot, $5::pg_snapshot, 0, 0 FROM pg_control_system()`,
		projection.Name, number, projection.Version, live, string(pg.Beginning))
	return err
}

// Rebuild begins to fill a projection from the beginning, in another table than the one that
// readers see. It restarts a rebuild that is under way. If the view could not be switched to the
// new table, the error is a *BlockedError and no rebuild begins.
func (p *Projector) Rebuild(ctx context.Context, name string) error {
	projection, ok := p.find(name)
	if !ok {
		return fmt.Errorf("rebuild: %w: %.64q", quadrille.ErrNoSuchProjection, name)
	}
	err := pg.InTx(ctx, p.DB, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx,
			`LOCK TABLE eventstore_projections IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		var existing []generation
		if err := tx.SelectContext(ctx, &existing, generations+
			` WHERE name = $1 ORDER BY generation DESC`,
			name); err != nil {
			return err
		}
		number, err := beginRebuild(ctx, tx, projection, existing)
		if err != nil {
			return err
		}
		return checkSwitch(ctx, tx, name, number)
	})
	return wrap("rebuild "+name, err)
}

// beginRebuild creates the generation after the existing ones, which are sorted with the latest
// first, and drops the one that is being built.
func beginRebuild(ctx context.Context, tx *sqlx.Tx, projection Projection,
	existing []generation) (number int, err error) {
	number = 1
	for i, g := range existing {
		if i == 0 {
			number = g.Generation + 1
		}
		if !g.Live {
			if err := g.drop(ctx, tx); err != nil {
				return 0, err
			}
		}
	}
	return number, createGeneration(ctx, tx, projection, number, false)
}

// drop deletes a generation. It leaves the table if other objects depend on it or another role owns
// it.
func (g generation) drop(ctx context.Context, tx *sqlx.Tx) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM eventstore_projections WHERE name = $1
		AND generation = $2`, g.Name, g.Generation); err != nil {
		return err
	}
	err := asBlocked(g.table(), inSavepoint(ctx, tx, `DROP TABLE `+g.table()))
	if _, isBlocked := errors.AsType[*BlockedError](err); isBlocked {
		return nil
	}
	return err
}

// promote switches the view of a projection to a generation at the end of its window, unless
// readers of the view may have seen a fact that this generation has not applied.
func (p *Projector) promote(ctx context.Context, lead *pg.Lead, g generation) (step, error) {
	behind := false
	err := lead.Tx(ctx, func(tx pg.Fenced) error {
		if err := lockShared(ctx, tx); err != nil {
			return err
		}
		// All other readers would queue behind the switch while a long one, such as a dump, runs.
		if _, err := tx.Tx().ExecContext(ctx, `SET LOCAL lock_timeout = '`+switchLockTimeout+
			`'`); err != nil {
			return err
		}
		// The lock on its row keeps the live generation from advancing before the switch.
		var old []generation
		err := tx.Tx().SelectContext(ctx, &old, generations+` WHERE name = $1 AND live FOR UPDATE`,
			g.Name)
		if err != nil {
			return err
		}
		for _, o := range old {
			if behind, err = g.isBehind(ctx, tx, o); behind || err != nil {
				return err
			}
		}
		return g.replace(ctx, tx, old)
	})
	if err != nil {
		return idle, fmt.Errorf("switch the view to %s: %w", g.table(), err)
	}
	if behind {
		return lagging, nil
	}
	p.Log.Info().Str("projection", g.Name).Int("generation", g.Generation).Int("version", g.Version).
		Msg("projection rebuilt")
	return promoted, nil
}

// isBehind reports whether readers of another generation may have seen a fact that this one, which
// is at the end of its window, has not applied.
func (g generation) isBehind(ctx context.Context, tx pg.Fenced, o generation) (bool, error) {
	seen, _, err := eventLog.Window(ctx, tx.Tx(), g.A, o.B, 0, 1)
	return len(seen) > 0, err
}

// replace makes this generation the live one and drops the old ones.
func (g generation) replace(ctx context.Context, tx pg.Fenced, old []generation) error {
	if err := switchView(ctx, tx.Tx(), g.Name, g.Generation); err != nil {
		return err
	}
	for _, o := range old {
		if err := o.drop(ctx, tx.Tx()); err != nil {
			return err
		}
	}
	_, err := tx.Tx().ExecContext(ctx, `UPDATE eventstore_projections SET live = true
		WHERE name = $1 AND generation = $2`, g.Name, g.Generation)
	return err
}

// Progress returns the progress of all generations, including those that are being built.
func (p *Projector) Progress(ctx context.Context) ([]Progress, error) {
	list := []Progress{}
	err := p.DB.SelectContext(ctx, &list, `SELECT name, generation, version, live, done, started_at,
		note, error,
		greatest(done, (SELECT coalesce(max(seq), 0) FROM eventstore)) AS of FROM eventstore_projections
			ORDER BY name, generation`)
	return list, wrap("read progress of projections", err)
}
