package eventstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/postgres"
)

// Streams is the working set of event-sourced aggregates during a batch: a field of a
// consumer.State, tagged with the kind of aggregate and the name of its key:
//
//	Accounts eventstore.Streams[Account] `table:"account" key:"customer"`
//
// A reaction reads the state with Get, as it does with consumer.Rows, and changes it by saying with
// Record what has happened. The heads of the streams that were asked for are locked from Load to
// the end of the transaction; of two replicas that begin the same stream one is run again.
type Streams[V Aggregate[V]] struct {
	kind    string
	wanted  map[string]bool
	streams map[string]*stream[V]
}

type stream[V Aggregate[V]] struct {
	loaded Head // of the stream as it is stored
	count  int64
	state  V
	facts  []events.Event // to be appended
}

// StreamOf is the name of an aggregate's stream: "account/ada".
func StreamOf(kind, key string) string { return kind + "/" + key }

// KeyOf is the reverse of StreamOf.
func KeyOf(stream string) string {
	_, key, _ := strings.Cut(stream, "/")
	return key
}

// Lock says that the aggregate with this key will be read or changed.
func (s *Streams[V]) Lock(key string) {
	if s.streams[key] != nil || s.wanted[key] {
		return
	}
	if s.wanted == nil {
		s.wanted = map[string]bool{}
	}
	s.wanted[key] = true
}

// Get returns the state; ok is false when nothing has happened to the aggregate yet. It panics for
// a key that nobody asked for.
func (s *Streams[V]) Get(key string) (state V, ok bool) {
	found := s.stream(key)
	return found.state, found.count > 0
}

// Loaded is Get for Needs: before the aggregate is loaded there is none.
func (s *Streams[V]) Loaded(key string) (state V, ok bool) {
	found := s.streams[key]
	if found == nil {
		return state, false
	}
	return found.state, found.count > 0
}

// Record says what has happened to the aggregate that the fact is about, by reason of cause. It
// panics for a key that nobody asked for.
func (s *Streams[V]) Record(cause events.Event, fact events.Payload) {
	found := s.stream(fact.Subject())
	found.state = found.state.Fold(fact)
	found.count++
	found.facts = append(found.facts, events.Event{
		CorrelationID: cause.CorrelationID, CausationID: cause.ID, TraceParent: cause.TraceParent,
		Time: cause.Time, Data: fact,
	})
}

func (s *Streams[V]) stream(key string) *stream[V] {
	found := s.streams[key]
	if found == nil {
		panic(fmt.Errorf("%s %s was not asked for: the function Needs must ask for every aggregate "+
			"that a reaction touches", s.kind, key))
	}
	return found
}

// Bind names the kind of aggregate. The runtime calls it with the tags of the field.
func (s *Streams[V]) Bind(table, _ string) { s.kind = table }

// NeedsLoad tells whether aggregates were asked for that are not loaded.
func (s *Streams[V]) NeedsLoad() bool { return len(s.wanted) > 0 }

// take returns the wanted keys, sorted, and counts them as loaded.
func (s *Streams[V]) take() []string {
	keys := slices.Sorted(maps.Keys(s.wanted))
	s.wanted = nil
	if s.streams == nil {
		s.streams = map[string]*stream[V]{}
	}
	for _, key := range keys {
		s.streams[key] = &stream[V]{}
	}
	return keys
}

// Load locks the heads of the wanted streams, in one order, and folds the streams up to them. The
// two are two statements: what one sees while it waits for a lock is older than the lock.
func (s *Streams[V]) Load(ctx context.Context, tx *sqlx.Tx) error {
	keys := s.take()
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = StreamOf(s.kind, key)
	}
	heads, err := lock(ctx, tx, names)
	if err != nil {
		return wrap("load "+s.kind, err)
	}
	states, err := foldAll[V](ctx, func(ctx context.Context, query string, args ...any) (*sqlx.Rows,
		error) {
		prepared, err := postgres.Prepared(ctx, tx, query)
		if err != nil {
			return nil, err
		}
		return prepared.Query(ctx, args...)
	}, names)
	if err != nil {
		return wrap("load "+s.kind, err)
	}
	for i, key := range keys {
		folded := states[names[i]]
		if folded.Head != heads[names[i]] {
			return wrap("load "+s.kind, differ(ctx, tx, names[i], folded.Head, heads[names[i]]))
		}
		s.streams[key] = &stream[V]{loaded: folded.Head, count: folded.Version, state: folded.State}
	}
	return nil
}

// differ says why the events of a stream do not end at its head. Before there was a head to lock,
// another transaction may have begun the stream: that is a *Conflict, and all else a *Misfit.
func differ(ctx context.Context, tx *sqlx.Tx, stream string, folded, head Head) error {
	if head.Version > 0 {
		return &MismatchError{stream, folded.Version,
			fmt.Sprintf("the stream has ended at %d, and with another hash", head.Version)}
	}
	heads, err := Heads(ctx, tx, stream)
	if err != nil {
		return err
	}
	if begun, ok := heads[stream]; ok {
		return &Conflict{stream, 0, begun.Version}
	}
	return &MismatchError{stream, folded.Version, "the head of the stream is missing"}
}

// Save appends what has happened, after the heads that were loaded, and takes the snapshots that
// are due.
func (s *Streams[V]) Save(ctx context.Context, tx *sqlx.Tx) error {
	var all []Appending
	for _, key := range slices.Sorted(maps.Keys(s.streams)) {
		if found := s.streams[key]; len(found.facts) > 0 {
			for i := range found.facts {
				found.facts[i].ID = events.NewID()
			}
			all = append(all, Appending{StreamOf(s.kind, key), found.loaded, found.facts})
		}
	}
	if len(all) == 0 {
		return nil
	}
	heads, err := AppendAll(ctx, tx, all...)
	if err != nil {
		return wrap("save "+s.kind, err)
	}
	var taken []snapshot
	for i, a := range all {
		if a.Expected.Version/SnapshotEvery == heads[i].Version/SnapshotEvery {
			continue
		}
		snap, err := snapshotOf(a.Stream, Folded[V]{heads[i], s.streams[KeyOf(a.Stream)].state})
		if err != nil {
			return wrap("save "+s.kind, err)
		}
		taken = append(taken, snap)
	}
	return wrap("save "+s.kind, writeSnapshots(ctx, tx, taken))
}

// LoadFrom loads from a memory, which holds the states without their history.
func (s *Streams[V]) LoadFrom(m consumer.Memory) error {
	for _, key := range s.take() {
		found := s.streams[key]
		ok, err := m.Row(s.kind, key, &found.state)
		if err != nil {
			return fmt.Errorf("recall %s: %w", s.kind, err)
		}
		if ok {
			found.count = 1
		}
	}
	return nil
}

// SaveTo stores in a memory what has changed.
func (s *Streams[V]) SaveTo(m consumer.Memory) (changed bool, _ error) {
	for _, key := range slices.Sorted(maps.Keys(s.streams)) {
		if found := s.streams[key]; len(found.facts) > 0 {
			if err := m.Put(s.kind, key, found.state); err != nil {
				return changed, err
			}
			changed = true
		}
	}
	return changed, nil
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
