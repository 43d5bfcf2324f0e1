package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/postgres"
)

// Progress is how far a projection is.
type Progress struct {
	Name       string    `db:"name" json:"name"`
	Generation int       `db:"generation" json:"generation"`
	Version    int       `db:"version" json:"version"`
	Live       bool      `db:"live" json:"live"` // it is what readers see; otherwise it is being built
	Done       int64     `db:"done" json:"done"` // facts
	Of         int64     `db:"of" json:"of"`     // facts that there are, or a few more
	StartedAt  time.Time `db:"started_at" json:"started_at"`
	Note       string    `db:"note" json:"note,omitempty"`   // why it is filled from the beginning
	Error      string    `db:"error" json:"error,omitempty"` // why it stands still
}

// showWait bounds how long readers wait while a table takes the place of another.
const showWait = "200ms"

// ErrNoSuchProjection says that the service has no projection of this name.
var ErrNoSuchProjection = errors.New("no such projection")

// Prepare creates the tables of projections that there are not yet, so that readers find a view,
// and begins to rebuild those of another version. In a database that was restored, or moved to
// another cluster, all of them begin again; Run finds that out as well. Call it before Run;
// replicas may do so at the same time.
func (p *Projector) Prepare(ctx context.Context) error {
	err := postgres.InTx(ctx, p.DB, func(tx *sqlx.Tx) error { return p.prepare(ctx, tx) })
	return wrap("prepare projections", err)
}

func (p *Projector) prepare(ctx context.Context, tx *sqlx.Tx) error {
	if err := p.fit(ctx, tx); err != nil {
		return fmt.Errorf("fit the database: %w", err)
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
	var there []generation
	if err := tx.SelectContext(ctx, &there, generations+` WHERE name = $1 ORDER BY generation DESC`,
		projection.Name); err != nil {
		return err
	}
	switch {
	case len(there) == 0:
		number := 1 // a table may have been left behind
		if err := tx.GetContext(ctx, &number, `SELECT 1 + coalesce(max(substring(relname
			FROM '[0-9]{1,9}$')::int), 0) FROM pg_class
			WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
				AND relname ~ ('^' || $1 || '_[0-9]{1,9}$')`, projection.Name); err != nil {
			return err
		}
		if err := begin(ctx, tx, projection, number, true); err != nil {
			return err
		}
		return show(ctx, tx, projection.Name, number)
	// a later one is that of a release to come, or that was gone back from
	case there[0].Version >= projection.Version:
		return nil
	}
	// that it cannot be shown must not keep a service from starting
	_, err := rebuild(ctx, tx, projection, there)
	return err
}

// begin creates the table of a generation, which has everything before it.
func begin(ctx context.Context, tx *sqlx.Tx, projection Projection, number int, live bool) error {
	if _, err := tx.ExecContext(ctx, `CREATE TABLE `+tableOf(projection.Name, number)+` (`+
		projection.Columns+`)`); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO eventstore_projections (name, generation, version, live,
		system, store, a, b, last_seq, done)
		SELECT $1, $2, $3, $4, system_identifier::text, `+storeSQL+
		`, $5::pg_snapshot, $5::pg_snapshot, 0, 0 FROM pg_control_system()`,
		projection.Name, number, projection.Version, live, string(postgres.Beginning))
	return err
}

// Rebuild begins to fill a projection from the beginning, in another table than the one that
// readers see. One that is being built already is begun again. Where the new table could not take
// the place of the other one, the error is a *BlockedError, and nothing begins.
func (p *Projector) Rebuild(ctx context.Context, name string) error {
	projection, ok := p.find(name)
	if !ok {
		return fmt.Errorf("rebuild: %w: %.64q", ErrNoSuchProjection, name)
	}
	err := postgres.InTx(ctx, p.DB, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx,
			`LOCK TABLE eventstore_projections IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		var there []generation
		if err := tx.SelectContext(ctx, &there, generations+` WHERE name = $1 ORDER BY generation DESC`,
			name); err != nil {
			return err
		}
		number, err := rebuild(ctx, tx, projection, there)
		if err != nil {
			return err
		}
		return tryShow(ctx, tx, name, number)
	})
	return wrap("rebuild "+name, err)
}

// rebuild begins a generation after those that are there, the latest first.
func rebuild(ctx context.Context, tx *sqlx.Tx, projection Projection,
	there []generation) (number int, err error) {
	number = 1
	for i, g := range there {
		if i == 0 {
			number = g.Generation + 1
		}
		if !g.Live {
			if err := g.drop(ctx, tx); err != nil {
				return 0, err
			}
		}
	}
	return number, begin(ctx, tx, projection, number, false)
}

// drop forgets a generation. A table that others depend on, or own, is left to them.
func (g generation) drop(ctx context.Context, tx *sqlx.Tx) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM eventstore_projections WHERE name = $1
		AND generation = $2`, g.Name, g.Generation); err != nil {
		return err
	}
	err := blocked(g.table(), try(ctx, tx, `DROP TABLE `+g.table()))
	if _, theirs := errors.AsType[*BlockedError](err); theirs {
		return nil
	}
	return err
}

// release replaces what readers see by a generation that is at the end of its window, unless they
// have seen a fact that it lacks.
func (p *Projector) release(ctx context.Context, lead *postgres.Lead, g generation) (step, error) {
	late := false
	err := lead.Tx(ctx, func(tx postgres.Fenced) error {
		if err := share(ctx, tx); err != nil {
			return err
		}
		// A long reader of the view, such as a dump, must not make all other readers wait behind this.
		if _, err := tx.Tx().ExecContext(ctx, `SET LOCAL lock_timeout = '`+showWait+`'`); err != nil {
			return err
		}
		var old []generation
		err := tx.Tx().SelectContext(ctx, &old, generations+` WHERE name = $1 AND live FOR UPDATE`,
			g.Name)
		if err != nil {
			return err
		}
		for _, o := range old {
			if late, err = g.lacks(ctx, tx, o); late || err != nil {
				return err
			}
		}
		return g.replace(ctx, tx, old)
	})
	if err != nil {
		return idle, fmt.Errorf("show %s: %w", g.table(), err)
	}
	if late {
		return behind, nil
	}
	p.Log.Info().Str("projection", g.Name).Int("generation", g.Generation).Int("version", g.Version).
		Msg("projection rebuilt")
	return shown, nil
}

// lacks tells whether readers of another generation may have seen a fact that this one has not,
// when this one is at the end of its window.
func (g generation) lacks(ctx context.Context, tx postgres.Fenced, o generation) (bool, error) {
	seen, _, err := log.Window(ctx, tx.Tx(), g.A, o.B, 0, 1)
	return len(seen) > 0, err
}

// replace lets readers see this generation instead of the old ones.
func (g generation) replace(ctx context.Context, tx postgres.Fenced, old []generation) error {
	if err := show(ctx, tx.Tx(), g.Name, g.Generation); err != nil {
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

// Progress tells how far the projections are, those that are being built included.
func (p *Projector) Progress(ctx context.Context) ([]Progress, error) {
	list := []Progress{}
	err := p.DB.SelectContext(ctx, &list, `SELECT name, generation, version, live, done, started_at,
		note, error,
		greatest(done, (SELECT coalesce(max(seq), 0) FROM eventstore)) AS of FROM eventstore_projections
			ORDER BY name, generation`)
	return list, wrap("read progress of projections", err)
}
