package eventstore

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// Aggregate is a state that is folded from a stream. It begins with the zero value. V is the type
// itself; a snapshot stores its exported fields.
type Aggregate[V any] interface {
	// Fold returns the state after one more event. It must be pure, and must accept every event that
	// was ever stored: a refusal is decided before the event is stored.
	Fold(events.Payload) V
	// FoldVersion must rise with every change of Fold that gives another state for the same events,
	// and with every change of the fields. Older snapshots are then ignored.
	FoldVersion() int
	// Facts returns a sample of each type of event in the streams.
	Facts() []events.Payload
}

// Folded is the state of a stream at its head.
type Folded[V any] struct {
	Head
	State V
}

// Fold returns the states of streams as q sees them. It folds each stream from its snapshot, if
// that is valid, and the events after it. A stream without events is not in the map. The events are
// checked against the chain of hashes: the error is a *MismatchError if an event was changed, and a
// *StoredError if this release cannot read it.
func Fold[V Aggregate[V]](ctx context.Context, q sqlx.QueryerContext,
	streams ...string) (map[string]Folded[V], error) {
	return foldFromSnapshots[V](ctx, q.QueryxContext, streams)
}

// queryFunc runs a query, prepared or not.
type queryFunc func(ctx context.Context, query string, args ...any) (*sqlx.Rows, error)

func foldFromSnapshots[V Aggregate[V]](ctx context.Context, query queryFunc,
	streams []string) (map[string]Folded[V], error) {
	streams = slices.Compact(slices.Sorted(slices.Values(streams)))
	snapshots, err := readSnapshots(ctx, query, V.FoldVersion(*new(V)), streams)
	if err != nil {
		return nil, err
	}
	states, rejected, err := fold[V](ctx, query, streams, snapshots)
	if err != nil || len(rejected) == 0 {
		return states, err
	}
	refolded, _, err := fold[V](ctx, query, rejected, nil)
	maps.Copy(states, refolded)
	return states, err
}

// Replay does the same as Fold, but from the first event and without snapshots.
func Replay[V Aggregate[V]](ctx context.Context, q sqlx.QueryerContext,
	streams ...string) (map[string]Folded[V], error) {
	states, _, err := fold[V](ctx, q.QueryxContext, streams, nil)
	return states, err
}

// tailSQL reads, for each stream, the event at which its snapshot was taken and the later ones.
const tailSQL = `
SELECT e.stream, e.version, e.seq, e.id::text, e.type, e.payload::text, e.headers::text, e.hash,
	e.recorded_at
FROM unnest($1::text[], $2::bigint[]) AS s (stream, version)
JOIN eventstore AS e ON e.stream = s.stream AND e.version >= s.version
ORDER BY e.stream, e.version`

// fold folds streams. It rejects a snapshot that belongs to another history and returns its stream
// in rejected.
func fold[V Aggregate[V]](ctx context.Context, query queryFunc, streams []string,
	snapshots map[string]snapshot) (states map[string]Folded[V], rejected []string, err error) {
	known := events.NewCatalogue(V.Facts(*new(V))...)
	versions := make(pq.Int64Array, len(streams))
	states = map[string]Folded[V]{}
	for i, stream := range streams {
		versions[i] = snapshots[stream].version
	}
	rows, err := query(ctx, tailSQL, pq.StringArray(streams), versions)
	for f, err := range scanFacts(rows, err) {
		if err != nil {
			return nil, nil, err
		}
		s, started := states[f.Stream]
		if cached, ok := snapshots[f.Stream]; ok && !started {
			if f.Version == cached.version && f.Hash == cached.hash &&
				json.Unmarshal(cached.state, &s.State) == nil {
				s.Head = Head{f.Version, f.Hash}
				states[f.Stream] = s
			}
			continue // a rejected snapshot leaves the stream without a state
		}
		if err := f.checkAfter(s.Head); err != nil {
			return nil, nil, err
		}
		e, err := f.Open(known)
		if err != nil {
			return nil, nil, err
		}
		states[f.Stream] = Folded[V]{Head{f.Version, f.Hash}, s.State.Fold(e.Data)}
	}
	for _, stream := range slices.Sorted(maps.Keys(snapshots)) {
		if _, ok := states[stream]; !ok {
			rejected = append(rejected, stream)
		}
	}
	return states, rejected, nil
}

// snapshotOf encodes a state.
func snapshotOf[V Aggregate[V]](stream string, f Folded[V]) (snapshot, error) {
	state, err := json.Marshal(f.State, json.Deterministic(true))
	if err != nil {
		return snapshot{}, fmt.Errorf("snapshot of %s: %w", stream, err)
	}
	return snapshot{stream: stream, version: f.Version, fold: f.State.FoldVersion(), state: state,
		hash: f.Hash}, nil
}

// lockHeads locks the heads of streams in sorted order, and returns those that exist. All
// transactions lock in this order, so that two of them cannot wait for each other.
func lockHeads(ctx context.Context, tx *sqlx.Tx, streams []string) (map[string]Head, error) {
	query, err := pg.Prepared(ctx, tx, `SELECT stream, version, hash FROM eventstore_streams
		WHERE stream = ANY($1) ORDER BY stream FOR UPDATE`)
	if err != nil {
		return nil, fmt.Errorf("lock streams: %w", err)
	}
	rows, err := query.Query(ctx, pq.StringArray(streams))
	if err != nil {
		return nil, fmt.Errorf("lock streams: %w", err)
	}
	return scanHeads(rows)
}
