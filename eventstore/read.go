package eventstore

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/postgres"
)

// maxRead bounds what ReadAll returns at once.
const maxRead = 1000

// Fact is an event as it is stored.
type Fact struct {
	Stream     string
	Version    int64
	Seq        int64 // its place in the table: that of a later event of the same stream is higher
	Record     events.Record
	Hash       Hash
	RecordedAt time.Time // by the database's clock
	headers    []byte
}

// Open decodes the event, through the upcasters of its payload.
func (f Fact) Open(known events.Catalogue) (events.Event, error) {
	e, err := known.Open(f.Record)
	if err != nil {
		return e, fmt.Errorf("event %d of stream %s: %w", f.Version, f.Stream, err)
	}
	return e, nil
}

// Read returns the events of one stream that come after a version, in order, at most limit. The hash
// of the last one and its version are the Head to append after.
func Read(ctx context.Context, q sqlx.QueryerContext, stream string, after int64, limit int) ([]Fact, error) {
	rows, err := q.QueryxContext(ctx, factColumns+` WHERE stream = $1 AND version > $2 ORDER BY version LIMIT $3`, stream, after, limit)
	return collect(scanFacts(rows, err))
}

const factColumns = `SELECT stream, version, seq, id::text, type, payload::text, headers::text, hash, recorded_at FROM eventstore`

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
			err := rows.Scan(&f.Stream, &f.Version, &f.Seq, &r.ID, &r.Type, &r.Data, &f.headers, &f.Hash, &f.RecordedAt)
			if err == nil {
				err = r.SetHeaders(f.headers)
			}
			if err != nil {
				yield(f, fmt.Errorf("read event %d of stream %s: %w", f.Version, f.Stream, err))
				return
			}
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

// Place is how far a reader of all streams has come. The zero value is the beginning.
//
// A place serves to go on from only once a committed transaction has stored it; see
// postgres.Log.Window.
type Place struct {
	A, B    postgres.Snapshot
	LastSeq int64
}

const log = postgres.Log("eventstore")

// ReadAll returns the next events of all streams in the order of commits, at most 1000, and the place
// after them. Nothing is left out, whatever order transactions commit in, and nothing comes twice;
// without news the place that it returns is the same, or later.
func ReadAll(ctx context.Context, q sqlx.QueryerContext, from Place) ([]Fact, Place, error) {
	if from.A == "" {
		from.A, from.B = postgres.Beginning, postgres.Beginning
	}
	place := from
	if place.A == place.B {
		now, err := postgres.Now(ctx, q)
		if err != nil || now == place.A {
			return nil, place, err
		}
		place.B, place.LastSeq = now, 0
	}
	seqs, err := log.Window(ctx, q, place.A, place.B)
	if err != nil {
		return nil, from, err
	}
	first, _ := slices.BinarySearch(seqs, place.LastSeq+1)
	seqs = seqs[first:]
	if len(seqs) == 0 && from.A == from.B {
		return nil, from, nil // no news: the window stays open, and nothing has to be stored
	}
	rest := len(seqs) > maxRead
	seqs = seqs[:min(len(seqs), maxRead)]
	rows, err := q.QueryxContext(ctx, factColumns+` WHERE seq = ANY($1)`, pq.Int64Array(seqs))
	facts, err := collect(scanFacts(rows, err))
	if err != nil {
		return nil, from, err
	}
	slices.SortFunc(facts, func(a, b Fact) int { return cmp.Compare(a.Seq, b.Seq) })
	if rest {
		place.LastSeq = seqs[len(seqs)-1]
	} else {
		place = Place{A: place.B, B: place.B}
	}
	return facts, place, nil
}
