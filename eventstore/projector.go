package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// The bounds of projecting.
const (
	projectInterval = 100 * time.Millisecond // between two polls for new facts
	errorPause      = 2 * time.Second        // after an error, before the next attempt
	blockedPause    = 30 * time.Second       // the same, if a person must act first
	maxErrorBytes   = 2000                   // of an error, in the database
	// catchUpSteps is how many steps of a rebuild run while the live table waits.
	catchUpSteps = 20
)

// Projector fills the projections of a service. Any number of replicas may run one. A leader does
// the work, and its token protects every write.
type Projector struct {
	DB          *sqlx.DB
	Projections []Projection
	Log         zerolog.Logger
}

// generation is a row of eventstore_projections: a table that is being filled.
type generation struct {
	Name       string      `db:"name"`
	Generation int         `db:"generation"`
	Version    int         `db:"version"`
	Live       bool        `db:"live"`
	A          pg.Snapshot `db:"a"`
	B          pg.Snapshot `db:"b"`
	LastSeq    int64       `db:"last_seq"`
	Error      string      `db:"error"`
}

func (g generation) table() string { return tableOf(g.Name, g.Generation) }

const generations = `SELECT name, generation, version, live, a::text, b::text, last_seq, error
	FROM eventstore_projections`

// Run fills the projections until ctx is done. After an error of the database it waits and tries
// again. If a fact cannot be projected, Run logs it and stops this projection at the fact; all
// other projections continue.
func (p *Projector) Run(ctx context.Context) {
	leader := pg.Leader{DB: p.DB, Name: "projections"}
	leader.Run(ctx, p.lead, func(err error) {
		p.Log.Warn().Err(err).Msg("projections pause")
		sleep(ctx, errorPause)
	})
}

func (p *Projector) lead(ctx context.Context, lead *pg.Lead) error {
	pausedUntil := map[string]time.Time{} // by table, after an error
	readers := map[string]*reader{}
	// Reading the window of a long history takes longer than the usual time-out.
	if _, err := lead.Conn().ExecContext(ctx, `SET statement_timeout = 0`); err != nil {
		return fmt.Errorf("prepare lead: %w", err)
	}
	for ctx.Err() == nil {
		if why, err := diverged(ctx, p.DB); err != nil || why != "" {
			if err == nil {
				err = p.prepareAsLeader(ctx, lead)
			}
			if err != nil {
				return err
			}
			clear(pausedUntil)
			clear(readers) // the positions that they have in memory may no longer exist
		}
		var open []generation
		if err := p.DB.SelectContext(ctx, &open, generations+` ORDER BY name, generation`); err != nil {
			return fmt.Errorf("read projections: %w", err)
		}
		progressed := false
		for _, g := range open {
			projection, ok := p.find(g.Name)
			if !ok || g.Version != projection.Version || time.Now().Before(pausedUntil[g.table()]) {
				continue // another release of the service fills a generation of another version
			}
			if readers[g.table()] == nil {
				readers[g.table()] = new(reader)
			}
			// An error of one projection pauses only that one. The lead ends when it was lost, or when the
			// database does not answer: then no projection could make progress.
			result, err := p.follow(ctx, lead, projection, g, readers[g.table()])
			if errors.Is(err, pg.ErrSuperseded) || err != nil && pg.Alive(ctx, p.DB) != nil {
				return err
			}
			if err != nil && ctx.Err() == nil {
				p.Log.Error().Err(err).Str("projection", g.Name).Int("generation",
					g.Generation).Msg("projection makes no progress")
				pausedUntil[g.table()] = time.Now().Add(pauseAfter(err))
			}
			if err := g.saveError(ctx, p.DB, err); err != nil {
				return err
			}
			progressed = progressed || result != idle
		}
		if !progressed {
			sleep(ctx, projectInterval)
		}
	}
	return ctx.Err()
}

// pauseAfter returns the pause after an error, which is longer if a person must act first.
func pauseAfter(err error) time.Duration {
	if _, blocked := errors.AsType[*BlockedError](err); blocked {
		return blockedPause
	}
	return errorPause
}

func (p *Projector) find(name string) (Projection, bool) {
	for _, projection := range p.Projections {
		if projection.Name == name {
			return projection, true
		}
	}
	return Projection{}, false
}

// step is the result of advancing a generation.
type step int

const (
	idle     step = iota // there are no new facts
	advanced             // facts were applied, and there may be more
	lagging              // the end of its window is behind the live generation
	promoted             // readers see it from now on
)

// follow advances one generation. Under load, a generation that is being built always lags a
// little, because the live one has advanced while a window was applied. If it lags, follow
// therefore advances only this generation for a few steps, while the live one waits, until it has
// caught up.
func (p *Projector) follow(ctx context.Context, lead *pg.Lead, projection Projection,
	g generation, r *reader,
) (result step, err error) {
	result, err = p.advance(ctx, lead, projection, g, r)
	catchUp := result == lagging
	for n := 0; catchUp && err == nil && result != promoted && n < catchUpSteps; n++ {
		err = p.DB.GetContext(ctx, &g, generations+` WHERE name = $1 AND generation = $2`,
			g.Name, g.Generation)
		if err != nil {
			return result, fmt.Errorf("read projection %s: %w", g.table(), err)
		}
		result, err = p.advance(ctx, lead, projection, g, r)
	}
	return result, err
}

// advance applies the next facts to one generation and saves its checkpoint in the same
// transaction. It promotes a generation that has caught up. Facts are read in the session of the
// lead. They are written in a transaction that checks the token of the lead: a leader that was
// stopped for a while and has been replaced must not apply facts a second time.
func (p *Projector) advance(ctx context.Context, lead *pg.Lead, projection Projection,
	g generation, r *reader,
) (result step, err error) {
	from := Checkpoint{g.A, g.B, g.LastSeq}
	facts, to, err := r.next(ctx, lead.Conn(), from)
	if err != nil {
		return idle, err
	}
	if to == from && g.Live {
		return idle, nil
	}
	if to == from {
		return p.promote(ctx, lead, g)
	}
	batch, err := open(projection, facts)
	if err != nil {
		return idle, err
	}
	err = lead.Tx(ctx, func(tx pg.Fenced) error {
		if err := lockShared(ctx, tx); err != nil {
			return err
		}
		if err := projection.apply(ctx, tx.Tx(), g.table(), batch); err != nil {
			return fmt.Errorf("project to %s: %w", g.table(), err)
		}
		return g.saveCheckpoint(ctx, tx, to, facts)
	})
	if err != nil {
		return idle, err
	}
	if to.A != to.B || g.Live {
		return advanced, nil
	}
	// The generation may be promoted at the end of a window even if there are new facts by now: under
	// load there always are.
	g.A, g.B, g.LastSeq = to.A, to.B, to.LastSeq
	return p.promote(ctx, lead, g)
}

// lockShared prevents that a rebuild begins during the transaction. Both take this lock first, so
// that they cannot deadlock.
func lockShared(ctx context.Context, tx pg.Fenced) error {
	_, err := tx.Tx().ExecContext(ctx, `LOCK TABLE eventstore_projections IN ROW EXCLUSIVE MODE`)
	return wrap("lock projections", err)
}

// open decodes the facts that a projection reads. The others count as applied, since its checkpoint
// passes them. A fact that this release cannot decode is an error and is not passed over: the
// projection would lack it for good.
func open(projection Projection, facts []Fact) ([]Decoded, error) {
	known := events.NewCatalogue(projection.Facts...)
	var batch []Decoded
	for _, f := range facts {
		if !projection.reads(f.Stream) {
			continue
		}
		e, err := f.Open(known)
		if err != nil {
			return nil, err
		}
		batch = append(batch, Decoded{f.Stream, f.Version, e})
	}
	return batch, nil
}

// saveError stores why a generation makes no progress, for Progress. A nil cause clears it.
func (g generation) saveError(ctx context.Context, db *sqlx.DB, cause error) error {
	text := ""
	if cause != nil {
		text = strings.ToValidUTF8(cause.Error(), "?")
		text = strings.ToValidUTF8(text[:min(len(text), maxErrorBytes)], "")
	}
	if text == g.Error {
		return nil
	}
	_, err := db.ExecContext(ctx, `UPDATE eventstore_projections SET error = $3 WHERE name = $1
		AND generation = $2`,
		g.Name, g.Generation, text)
	return wrap("save the error of "+g.table(), err)
}

// saveCheckpoint stores the checkpoint of a generation, if it is still the one that g has. A reset
// to the beginning may have come first, and the facts of this batch do not follow the beginning.
// The mark is the last applied fact with its hash, by which a restored event store is noticed.
func (g generation) saveCheckpoint(ctx context.Context, tx pg.Fenced, to Checkpoint,
	facts []Fact) error {
	var last struct {
		seq  int64
		hash []byte
	}
	if n := len(facts); n > 0 {
		last.seq, last.hash = facts[n-1].Seq, facts[n-1].Hash[:]
	}
	result, err := tx.Tx().ExecContext(ctx, `UPDATE eventstore_projections SET a = $3::pg_snapshot,
		b = $4::pg_snapshot, last_seq = $5, done = done + $6,
			mark_seq = CASE WHEN $6 > 0 THEN $10::bigint ELSE mark_seq END, mark_hash = coalesce($11::bytea,
				mark_hash),
			store = `+storeSQL+`
		WHERE name = $1 AND generation = $2 AND a::text = $7 AND b::text = $8 AND last_seq = $9`,
		g.Name, g.Generation, string(to.A), string(to.B), to.LastSeq, len(facts), string(g.A),
		string(g.B), g.LastSeq, last.seq, last.hash)
	if err != nil {
		return fmt.Errorf("save the checkpoint of %s: %w", g.table(), err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("save the checkpoint of %s: it was changed meanwhile, as by a reset to the "+
			"beginning", g.table())
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
