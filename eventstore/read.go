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
	"github.com/quadrille-go/quadrille/internal/pg"
)

// The bounds of reading all streams.
const (
	maxRead   = 1000      // facts in one read
	maxWindow = 1_000_000 // positions of facts in memory
)

// Fact is a stored event.
type Fact struct {
	Stream     string
	Version    int64
	Seq        int64 // its position in the table, which rises within a stream
	Record     events.Record
	Hash       Hash
	RecordedAt time.Time // by the database's clock
	headers    []byte
	damageErr  error // why the row could not be decoded
}

// Open decodes the event and upcasts its payload. The error is a *StoredError.
func (f Fact) Open(known events.Catalogue) (events.Event, error) {
	if err := f.decodeError(); err != nil {
		return events.Event{}, err
	}
	e, err := known.Open(f.Record)
	if err != nil {
		return e, &StoredError{f.Stream, f.Version, err}
	}
	return e, nil
}

// Read returns, in order, at most limit events of one stream after a version. The version and the
// hash of the last one form the Head to append after. Unlike Fold and Verify, Read does not
// recompute the hashes.
func Read(ctx context.Context, q sqlx.QueryerContext, stream string, after int64,
	limit int) ([]Fact, error) {
	facts, err := readRaw(ctx, q, stream, after, limit)
	return checkDecoded(facts, err)
}

// readRaw does the same as Read, but also returns rows that could not be decoded.
func readRaw(ctx context.Context, q sqlx.QueryerContext, stream string, after int64,
	limit int) ([]Fact, error) {
	rows, err := q.QueryxContext(ctx, factColumns+` WHERE stream = $1 AND version > $2
		ORDER BY version LIMIT $3`, stream, after, limit)
	return collect(scanFacts(rows, err))
}

func checkDecoded(facts []Fact, err error) ([]Fact, error) {
	for _, f := range facts {
		if err == nil {
			err = f.decodeError()
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
			f.damageErr = errors.Join(r.SetHeaders(f.headers), f.Hash.Scan(hash))
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

// Checkpoint is the position of a reader of all streams. The zero value is the beginning.
//
// A reader may continue from a checkpoint only after a committed transaction has stored it; see
// pg.Log.Window.
type Checkpoint struct {
	A, B    pg.Snapshot
	LastSeq int64
}

const eventLog = pg.Log("eventstore")

// ReadAll returns at most 1000 of the next events of all streams in the order of commits, and the
// checkpoint after them. It misses no event and returns none twice, in every order in which
// transactions commit. If there are no new events, the checkpoint is the same or a later one.
func ReadAll(ctx context.Context, q sqlx.QueryerContext, from Checkpoint) ([]Fact, Checkpoint,
	error) {
	return new(reader).next(ctx, q, from)
}

// reader keeps the remaining positions of a window in memory. A window does not change, so reading
// a long history reads the positions of its facts once, and not again for every thousand facts.
type reader struct {
	windowLimit int // 0: maxWindow
	batch       int // 0: maxRead
	a, b        pg.Snapshot
	seqs        []int64
	more        bool // the window has positions after seqs
}

// next implements ReadAll.
func (r *reader) next(ctx context.Context, q sqlx.QueryerContext, from Checkpoint) ([]Fact,
	Checkpoint, error) {
	if from.A == "" {
		from.A, from.B = pg.Beginning, pg.Beginning
	}
	checkpoint := from
	now, err := r.currentSnapshot(ctx, q, checkpoint)
	if err != nil {
		return nil, from, err
	}
	if checkpoint.A == checkpoint.B {
		if now == checkpoint.A {
			return nil, checkpoint, nil
		}
		checkpoint.B, checkpoint.LastSeq = now, 0
	}
	if err := r.fillWindow(ctx, q, checkpoint); err != nil {
		return nil, from, err
	}
	if len(r.seqs) == 0 && from.A == from.B {
		return nil, from, nil // no new facts: the checkpoint does not have to be stored
	}
	seqs := r.seqs[:min(len(r.seqs), cmp.Or(r.batch, maxRead))]
	rows, err := q.QueryxContext(ctx, factColumns+` WHERE seq = ANY($1)`, pq.Int64Array(seqs))
	facts, err := checkDecoded(collect(scanFacts(rows, err)))
	if err != nil {
		return nil, from, err
	}
	slices.SortFunc(facts, func(a, b Fact) int { return cmp.Compare(a.Seq, b.Seq) })
	if r.more || len(seqs) < len(r.seqs) {
		checkpoint.LastSeq = seqs[len(seqs)-1]
	} else {
		checkpoint = Checkpoint{A: checkpoint.B, B: checkpoint.B}
	}
	return facts, checkpoint, nil
}

// ErrAhead means that a checkpoint is ahead of the database, which was restored or moved to another
// cluster. Reading from it would miss new events. Begin at the zero Checkpoint.
var ErrAhead = errors.New("the checkpoint is ahead of the database, which was restored or moved: " +
	"begin at the zero checkpoint")

// currentSnapshot returns the current snapshot, or ErrAhead if the checkpoint is ahead of it.
func (r *reader) currentSnapshot(ctx context.Context, q sqlx.QueryerContext,
	checkpoint Checkpoint) (pg.Snapshot, error) {
	var found struct {
		Now   pg.Snapshot
		Ahead bool
	}
	err := sqlx.GetContext(ctx, q, &found, `SELECT pg_current_snapshot()::text AS now,
		pg_snapshot_xmax($1::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) AS ahead`,
		string(checkpoint.B))
	if err == nil && found.Ahead {
		err = ErrAhead
	}
	return found.Now, wrap("take snapshot", err)
}

// fillWindow makes seqs the next positions after a checkpoint.
func (r *reader) fillWindow(ctx context.Context, q sqlx.QueryerContext,
	checkpoint Checkpoint) (err error) {
	if r.a == checkpoint.A && r.b == checkpoint.B {
		first, _ := slices.BinarySearch(r.seqs, checkpoint.LastSeq+1)
		if r.seqs = r.seqs[first:]; len(r.seqs) > 0 {
			return nil
		}
	}
	r.a, r.b = checkpoint.A, checkpoint.B
	r.seqs, r.more, err = eventLog.Window(ctx, q, checkpoint.A, checkpoint.B, checkpoint.LastSeq,
		cmp.Or(r.windowLimit, maxWindow))
	return err
}
