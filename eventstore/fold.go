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
	"github.com/quadrille-go/quadrille/postgres"
)

// Aggregate is a state that is the fold of a stream: the zero value, and after each event what Fold
// returns. V is the type itself; its exported fields are what a snapshot keeps.
type Aggregate[V any] interface {
	// Fold returns the state after one more event. It is pure, and must take every event that was ever
	// stored: what may happen was decided when it happened.
	Fold(events.Payload) V
	// FoldVersion is raised whenever Fold gives another state for the same events, or the state other
	// fields: it discards the snapshots that were made before.
	FoldVersion() int
	// Facts are a sample of each type of event that the streams hold.
	Facts() []events.Payload
}

// Folded is the state of a stream at its head.
type Folded[V any] struct {
	Head
	State V
}

// Fold returns the states of streams as q sees them, each folded from its snapshot, if it has one
// that is to be believed, and what came after it. A stream without events is not in the map. What
// is folded is checked against the chain of hashes: a *Misfit is the error when it was changed, and
// a *StoredError when this release cannot read it.
func Fold[V Aggregate[V]](ctx context.Context, q sqlx.QueryerContext,
	streams ...string) (map[string]Folded[V], error) {
	return foldAll[V](ctx, q.QueryxContext, streams)
}

// run is how a query is run: as it is, or prepared.
type run func(ctx context.Context, query string, args ...any) (*sqlx.Rows, error)

func foldAll[V Aggregate[V]](ctx context.Context, query run,
	streams []string) (map[string]Folded[V], error) {
	streams = slices.Compact(slices.Sorted(slices.Values(streams)))
	snapshots, err := readSnapshots(ctx, query, V.FoldVersion(*new(V)), streams)
	if err != nil {
		return nil, err
	}
	states, doubtful, err := fold[V](ctx, query, streams, snapshots)
	if err != nil || len(doubtful) == 0 {
		return states, err
	}
	again, _, err := fold[V](ctx, query, doubtful, nil)
	maps.Copy(states, again)
	return states, err
}

// Replay is Fold from the first event, snapshots or not.
func Replay[V Aggregate[V]](ctx context.Context, q sqlx.QueryerContext,
	streams ...string) (map[string]Folded[V], error) {
	states, _, err := fold[V](ctx, q.QueryxContext, streams, nil)
	return states, err
}

// tailSQL reads, of each stream, the event that its snapshot was taken after and those that follow.
const tailSQL = `
SELECT e.stream, e.version, e.seq, e.id::text, e.type, e.payload::text, e.headers::text, e.hash,
	e.recorded_at
FROM unnest($1::text[], $2::bigint[]) AS s (stream, version)
JOIN eventstore AS e ON e.stream = s.stream AND e.version >= s.version
ORDER BY e.stream, e.version`

// fold folds streams; doubtful are those whose snapshots belong to another history.
func fold[V Aggregate[V]](ctx context.Context, query run, streams []string,
	snapshots map[string]snapshot) (states map[string]Folded[V], doubtful []string, err error) {
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
		s, begun := states[f.Stream]
		if cached, ok := snapshots[f.Stream]; ok && !begun {
			if f.Version == cached.version && f.Hash == cached.hash &&
				json.Unmarshal(cached.state, &s.State) == nil {
				s.Head = Head{f.Version, f.Hash}
				states[f.Stream] = s
			}
			continue // a doubtful one leaves the stream without a state
		}
		if err := f.follows(s.Head); err != nil {
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
			doubtful = append(doubtful, stream)
		}
	}
	return states, doubtful, nil
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

// lock locks the heads of streams, sorted, and returns those that there are.
func lock(ctx context.Context, tx *sqlx.Tx, streams []string) (map[string]Head, error) {
	query, err := postgres.Prepared(ctx, tx, `SELECT stream, version, hash FROM eventstore_streams
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
