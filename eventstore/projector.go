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
	"github.com/quadrille-go/quadrille/postgres"
)

// The bounds of projecting.
const (
	projectInterval = 100 * time.Millisecond // how late news may be noticed
	projectError    = 2 * time.Second        // between two attempts at what has failed
	blockedPause    = 30 * time.Second       // the same, where others have to act first
	maxError        = 2000                   // bytes that are stored of an error
	// steps of a rebuild for which the live table stands still
	holdMost = 20
)

// Projector fills the projections of a service. Any number of replicas may run one: a leader does
// the work, and what it writes needs its token.
type Projector struct {
	DB          *sqlx.DB
	Projections []Projection
	Log         zerolog.Logger
}

// generation is a row of eventstore_projections: a table that is being filled.
type generation struct {
	Name       string            `db:"name"`
	Generation int               `db:"generation"`
	Version    int               `db:"version"`
	Live       bool              `db:"live"`
	A          postgres.Snapshot `db:"a"`
	B          postgres.Snapshot `db:"b"`
	LastSeq    int64             `db:"last_seq"`
	Error      string            `db:"error"`
}

func (g generation) table() string { return tableOf(g.Name, g.Generation) }

const generations = `SELECT name, generation, version, live, a::text, b::text, last_seq, error
	FROM eventstore_projections`

// Run fills the projections until ctx is done. Trouble with the database is waited out; a fact that
// cannot be projected stops its projection, with a line in the log, and no other.
func (p *Projector) Run(ctx context.Context) {
	leader := postgres.Leader{DB: p.DB, Name: "projections"}
	leader.Run(ctx, p.lead, func(err error) {
		p.Log.Warn().Err(err).Msg("projections pause")
		sleep(ctx, projectError)
	})
}

func (p *Projector) lead(ctx context.Context, lead *postgres.Lead) error {
	quiet := map[string]time.Time{} // projections that have failed, until when
	readers := map[string]*reader{}
	// The window of a long history takes its time to read, and would never be read under a time-out.
	if _, err := lead.Conn().ExecContext(ctx, `SET statement_timeout = 0`); err != nil {
		return fmt.Errorf("prepare lead: %w", err)
	}
	for ctx.Err() == nil {
		if why, err := unfit(ctx, p.DB); err != nil || why != "" {
			if err == nil {
				err = p.refit(ctx, lead)
			}
			if err != nil {
				return err
			}
			clear(quiet)
			clear(readers) // what they have read ahead may be gone
		}
		var open []generation
		if err := p.DB.SelectContext(ctx, &open, generations+` ORDER BY name, generation`); err != nil {
			return fmt.Errorf("read projections: %w", err)
		}
		busy := false
		for _, g := range open {
			projection, ok := p.find(g.Name)
			if !ok || g.Version != projection.Version || time.Now().Before(quiet[g.table()]) {
				continue // a generation of another version is that of another release of the service
			}
			if readers[g.table()] == nil {
				readers[g.table()] = new(reader)
			}
			came, err := p.follow(ctx, lead, projection, g, readers[g.table()])
			if errors.Is(err, postgres.ErrSuperseded) || err != nil && postgres.Alive(ctx, p.DB) != nil {
				return err
			}
			if err != nil && ctx.Err() == nil {
				p.Log.Error().Err(err).Str("projection", g.Name).Int("generation",
					g.Generation).Msg("projection is stuck")
				quiet[g.table()] = time.Now().Add(pauseAfter(err))
			}
			if err := g.note(ctx, p.DB, err); err != nil {
				return err
			}
			busy = busy || came != idle
		}
		if !busy {
			sleep(ctx, projectInterval)
		}
	}
	return ctx.Err()
}

// pauseAfter is longer where somebody has to act first.
func pauseAfter(err error) time.Duration {
	if _, blocked := errors.AsType[*BlockedError](err); blocked {
		return blockedPause
	}
	return projectError
}

func (p *Projector) find(name string) (Projection, bool) {
	for _, projection := range p.Projections {
		if projection.Name == name {
			return projection, true
		}
	}
	return Projection{}, false
}

// step is what an advance has come to.
type step int

const (
	idle   step = iota // there are no news
	moved              // there may be more
	behind             // at the end of its window, and readers have seen more
	shown              // readers see it from now on
)

// follow advances one generation. One that is being built is always a little behind the live one
// under load, because that has moved on while a window was filled. So the live one stands still for
// a few steps while the other one passes it.
func (p *Projector) follow(ctx context.Context, lead *postgres.Lead, projection Projection,
	g generation, r *reader,
) (came step, err error) {
	came, err = p.advance(ctx, lead, projection, g, r)
	held := came == behind
	for n := 0; held && err == nil && came != shown && n < holdMost; n++ {
		err = p.DB.GetContext(ctx, &g, generations+` WHERE name = $1 AND generation = $2`,
			g.Name, g.Generation)
		if err != nil {
			return came, fmt.Errorf("read projection %s: %w", g.table(), err)
		}
		came, err = p.advance(ctx, lead, projection, g, r)
	}
	return came, err
}

// advance applies the next facts to one generation, with its place in the same transaction, and
// lets readers see it when it has caught up.
func (p *Projector) advance(ctx context.Context, lead *postgres.Lead, projection Projection,
	g generation, r *reader,
) (came step, err error) {
	from := Checkpoint{g.A, g.B, g.LastSeq}
	facts, to, err := r.next(ctx, lead.Conn(), from)
	if err != nil {
		return idle, err
	}
	if to == from && g.Live {
		return idle, nil
	}
	if to == from {
		return p.release(ctx, lead, g)
	}
	batch, err := open(projection, facts)
	if err != nil {
		return idle, err
	}
	err = lead.Tx(ctx, func(tx postgres.Fenced) error {
		if err := share(ctx, tx); err != nil {
			return err
		}
		if err := projection.apply(ctx, tx.Tx(), g.table(), batch); err != nil {
			return fmt.Errorf("project to %s: %w", g.table(), err)
		}
		return g.move(ctx, tx, to, facts)
	})
	if err != nil {
		return idle, err
	}
	if to.A != to.B || g.Live {
		return moved, nil
	}
	// At the end of its window it may be shown, though there may be news by now, as there always are
	// under load.
	g.A, g.B, g.LastSeq = to.A, to.B, to.LastSeq
	return p.release(ctx, lead, g)
}

// share keeps a rebuild from beginning meanwhile: it comes first, as it does there, so that nobody
// waits for the other.
func share(ctx context.Context, tx postgres.Fenced) error {
	_, err := tx.Tx().ExecContext(ctx, `LOCK TABLE eventstore_projections IN ROW EXCLUSIVE MODE`)
	return wrap("lock projections", err)
}

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

// note stores why a generation stands still, if it does, for those who ask for its progress.
func (g generation) note(ctx context.Context, db *sqlx.DB, problem error) error {
	text := ""
	if problem != nil {
		text = strings.ToValidUTF8(problem.Error(), "?")
		text = strings.ToValidUTF8(text[:min(len(text), maxError)], "")
	}
	if text == g.Error {
		return nil
	}
	_, err := db.ExecContext(ctx, `UPDATE eventstore_projections SET error = $3 WHERE name = $1
		AND generation = $2`,
		g.Name, g.Generation, text)
	return wrap("note the trouble of "+g.table(), err)
}

// move stores how far a generation has come.
func (g generation) move(ctx context.Context, tx postgres.Fenced, to Checkpoint,
	facts []Fact) error {
	var mark struct {
		seq  int64
		hash []byte
	}
	if n := len(facts); n > 0 {
		mark.seq, mark.hash = facts[n-1].Seq, facts[n-1].Hash[:]
	}
	result, err := tx.Tx().ExecContext(ctx, `UPDATE eventstore_projections SET a = $3::pg_snapshot,
		b = $4::pg_snapshot, last_seq = $5, done = done + $6,
			mark_seq = CASE WHEN $6 > 0 THEN $10::bigint ELSE mark_seq END, mark_hash = coalesce($11::bytea,
				mark_hash),
			store = `+storeSQL+`
		WHERE name = $1 AND generation = $2 AND a::text = $7 AND b::text = $8 AND last_seq = $9`,
		g.Name, g.Generation, string(to.A), string(to.B), to.LastSeq, len(facts), string(g.A),
		string(g.B), g.LastSeq, mark.seq, mark.hash)
	if err != nil {
		return fmt.Errorf("move projection %s: %w", g.table(), err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("move projection %s: it is filled from the beginning by now", g.table())
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
