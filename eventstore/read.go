package eventstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/postgres"
)

// The bounds of reading all streams.
const (
	maxRead   = 1000      // facts at once
	windowMax = 1_000_000 // facts whose places are in memory
)

// Fact is an event as it is stored.
type Fact struct {
	Stream     string
	Version    int64
	Seq        int64 // its place in the table: that of a later event of the same stream is higher
	Record     events.Record
	Hash       Hash
	RecordedAt time.Time // by the database's clock
	headers    []byte
	damage     error // why the row did not decode
}

// Open decodes the event, through the upcasters of its payload. The error is a *StoredError.
func (f Fact) Open(known events.Catalogue) (events.Event, error) {
	if err := f.whole(); err != nil {
		return events.Event{}, err
	}
	e, err := known.Open(f.Record)
	if err != nil {
		return e, &StoredError{f.Stream, f.Version, err}
	}
	return e, nil
}

// Read returns the events of one stream that come after a version, in order, at most limit. The
// hash of the last one and its version are the Head to append after. It does not recompute the
// hashes, as Fold and Verify do.
func Read(ctx context.Context, q sqlx.QueryerContext, stream string, after int64,
	limit int) ([]Fact, error) {
	facts, err := readRaw(ctx, q, stream, after, limit)
	return whole(facts, err)
}

// readRaw is Read that leaves rows which do not decode to its caller.
func readRaw(ctx context.Context, q sqlx.QueryerContext, stream string, after int64,
	limit int) ([]Fact, error) {
	rows, err := q.QueryxContext(ctx, factColumns+` WHERE stream = $1 AND version > $2
		ORDER BY version LIMIT $3`, stream, after, limit)
	return collect(scanFacts(rows, err))
}

func whole(facts []Fact, err error) ([]Fact, error) {
	for _, f := range facts {
		if err == nil {
			err = f.whole()
		}
	}
	if err != nil {
		return nil, err
	}
	return facts, nil
}

const factColumns = `SELECT stream, version, seq, id::text, type, payload::text, headers::text,
	hash, recorded_at FROM eventstore`

func scanFacts(rows *sqlx.Rows, err error) iter.Seq2[Fact, error] {
	return func(yield func(Fact, error) bool) {
		if err != nil {
			yield(Fact{}, fmt.Errorf("read events: %w", err))
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var f Fact
			r := &f.Record
			var hash []byte
			if err := rows.Scan(&f.Stream, &f.Version, &f.Seq, &r.ID, &r.Type, &r.Data, &f.headers, &hash,
				&f.RecordedAt); err != nil {
				yield(f, &StoredError{f.Stream, f.Version, err}) // a lost connection is in rows.Err
				return
			}
			f.damage = errors.Join(r.SetHeaders(f.headers), f.Hash.Scan(hash))
			if !yield(f, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(Fact{}, fmt.Errorf("read events: %w", err))
		}
	}
}

func collect(facts iter.Seq2[Fact, error]) ([]Fact, error) {
	var all []Fact
	for f, err := range facts {
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// Checkpoint is how far a reader of all streams has come. The zero value is the beginning.
//
// A place serves to go on from only once a committed transaction has stored it; see
// postgres.Log.Window.
type Checkpoint struct {
	A, B    postgres.Snapshot
	LastSeq int64
}

const log = postgres.Log("eventstore")

// ReadAll returns the next events of all streams in the order of commits, at most 1000, and the
// place after them. Nothing is left out, whatever order transactions commit in, and nothing comes
// twice; without news the place that it returns is the same, or later.
func ReadAll(ctx context.Context, q sqlx.QueryerContext, from Checkpoint) ([]Fact, Checkpoint,
	error) {
	return new(reader).next(ctx, q, from)
}

// reader keeps what is left of a window, which does not change, so that going through a long
// history reads the places of its facts once and not once for every thousand.
type reader struct {
	most  int // 0: windowMax
	batch int // 0: maxRead
	a, b  postgres.Snapshot
	seqs  []int64
	more  bool // behind them
}

// next is ReadAll.
func (r *reader) next(ctx context.Context, q sqlx.QueryerContext, from Checkpoint) ([]Fact,
	Checkpoint, error) {
	if from.A == "" {
		from.A, from.B = postgres.Beginning, postgres.Beginning
	}
	place := from
	now, err := r.now(ctx, q, place)
	if err != nil {
		return nil, from, err
	}
	if place.A == place.B {
		if now == place.A {
			return nil, place, nil
		}
		place.B, place.LastSeq = now, 0
	}
	if err := r.read(ctx, q, place); err != nil {
		return nil, from, err
	}
	if len(r.seqs) == 0 && from.A == from.B {
		return nil, from, nil // no news: the window stays open, and nothing has to be stored
	}
	seqs := r.seqs[:min(len(r.seqs), cmp.Or(r.batch, maxRead))]
	rows, err := q.QueryxContext(ctx, factColumns+` WHERE seq = ANY($1)`, pq.Int64Array(seqs))
	facts, err := whole(collect(scanFacts(rows, err)))
	if err != nil {
		return nil, from, err
	}
	slices.SortFunc(facts, func(a, b Fact) int { return cmp.Compare(a.Seq, b.Seq) })
	if r.more || len(seqs) < len(r.seqs) {
		place.LastSeq = seqs[len(seqs)-1]
	} else {
		place = Checkpoint{A: place.B, B: place.B}
	}
	return facts, place, nil
}

// ErrAhead says that a place is ahead of the database: it was restored, or moved to another
// cluster, and the events that come will never be found from there. Begin at the zero Place.
var ErrAhead = errors.New("the place is ahead of the database, which was restored or moved: " +
	"begin at the zero place")

// now returns the current snapshot, which no place may be ahead of.
func (r *reader) now(ctx context.Context, q sqlx.QueryerContext,
	place Checkpoint) (postgres.Snapshot, error) {
	var found struct {
		Now   postgres.Snapshot
		Ahead bool
	}
	err := sqlx.GetContext(ctx, q, &found, `SELECT pg_current_snapshot()::text AS now,
		pg_snapshot_xmax($1::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) AS ahead`,
		string(place.B))
	if err == nil && found.Ahead {
		err = ErrAhead
	}
	return found.Now, wrap("take snapshot", err)
}

// read sees to it that seqs are what comes next at a place.
func (r *reader) read(ctx context.Context, q sqlx.QueryerContext, place Checkpoint) (err error) {
	if r.a == place.A && r.b == place.B {
		first, _ := slices.BinarySearch(r.seqs, place.LastSeq+1)
		if r.seqs = r.seqs[first:]; len(r.seqs) > 0 {
			return nil
		}
	}
	r.a, r.b = place.A, place.B
	r.seqs, r.more, err = log.Window(ctx, q, place.A, place.B, place.LastSeq,
		cmp.Or(r.most, windowMax))
	return err
}
