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
	"github.com/quadrille-go/quadrille/internal/pg"
)

// Streams is the working set of event-sourced aggregates during a batch: a field of a
// consumer.State, tagged with the kind of aggregate and the name of its key:
//
//	Accounts eventstore.Streams[Account] `table:"account" key:"customer"`
//
// A reaction reads the state with Get, as with consumer.Rows, and changes it by recording facts
// with Record. The heads of the streams named by Lock are locked from Load to the end of the
// transaction. If two replicas begin the same stream, the batch of one of them runs again.
type Streams[V Aggregate[V]] struct {
	kind    string                // of aggregate: the first part of the streams' names
	wanted  map[string]bool       // the keys that are locked by name, but not loaded yet
	streams map[string]*stream[V] // by key
}

// stream is an aggregate of the working set.
type stream[V Aggregate[V]] struct {
	loaded Head           // of the stream as it is stored
	count  int64          // of its facts, with those that are not appended yet
	state  V              // after all of them
	facts  []events.Event // to append
}

// StreamOf returns the name of an aggregate's stream, such as "account/ada".
func StreamOf(kind, key string) string { return kind + "/" + key }

// KeyOf returns the key in the name of a stream that StreamOf made.
func KeyOf(stream string) string {
	_, key, _ := strings.Cut(stream, "/")
	return key
}

// Lock adds the aggregate with this key to the working set.
func (s *Streams[V]) Lock(key string) {
	if s.streams[key] != nil || s.wanted[key] {
		return
	}
	if s.wanted == nil {
		s.wanted = map[string]bool{}
	}
	s.wanted[key] = true
}

// Get returns the state; ok is false if the aggregate has no events yet. It panics for a key that
// is not in the working set.
func (s *Streams[V]) Get(key string) (state V, ok bool) {
	found := s.stream(key)
	return found.state, found.count > 0
}

// Loaded is Get for the function Locks: ok is also false before the aggregate is loaded.
func (s *Streams[V]) Loaded(key string) (state V, ok bool) {
	found := s.streams[key]
	if found == nil {
		return state, false
	}
	return found.state, found.count > 0
}

// Record adds a fact, caused by the event cause, to the aggregate that is the subject of the fact.
// It panics if that aggregate is not in the working set.
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
		panic(fmt.Errorf("%s %s is not locked: the function Locks must lock every aggregate that "+
			"a reaction reads or changes", s.kind, key))
	}
	return found
}

// Table returns the loading half of the streams, for the runtime. Reactions do not need it.
func (s *Streams[V]) Table(table, _ string) consumer.Table {
	s.kind = table
	return streamsTable[V]{s}
}

// streamsTable loads and appends to streams.
type streamsTable[V Aggregate[V]] struct{ *Streams[V] }

// NeedsLoad reports whether streams are locked that are not loaded.
func (s streamsTable[V]) NeedsLoad() bool { return len(s.wanted) > 0 }

// takeWanted returns the wanted keys, sorted, and marks them as loaded.
func (s *Streams[V]) takeWanted() []string {
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

// Load locks the heads of the wanted streams in sorted order, and folds the streams up to them. It
// does so in two statements, since a statement that waits for a lock still sees the events as they
// were before the lock.
func (s streamsTable[V]) Load(ctx context.Context, tx *sqlx.Tx) error {
	keys := s.takeWanted()
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = StreamOf(s.kind, key)
	}
	heads, err := lockHeads(ctx, tx, names)
	if err != nil {
		return wrap("load "+s.kind, err)
	}
	states, err := foldFromSnapshots[V](ctx, func(ctx context.Context, query string,
		args ...any) (*sqlx.Rows,
		error) {
		prepared, err := pg.Prepared(ctx, tx, query)
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
			return wrap("load "+s.kind, headError(ctx, tx, names[i], folded.Head, heads[names[i]]))
		}
		s.streams[key] = &stream[V]{loaded: folded.Head, count: folded.Version, state: folded.State}
	}
	return nil
}

// headError returns why the events of a stream do not end at its head. It is a *Conflict if another
// transaction has begun the stream, which had no head to lock before, and a *MismatchError in all
// other cases.
func headError(ctx context.Context, tx *sqlx.Tx, stream string, folded, head Head) error {
	if head.Version > 0 {
		return &MismatchError{stream, folded.Version,
			fmt.Sprintf("the head of the stream is at version %d with another hash", head.Version)}
	}
	heads, err := Heads(ctx, tx, stream)
	if err != nil {
		return err
	}
	if started, ok := heads[stream]; ok {
		return &Conflict{stream, 0, started.Version}
	}
	return &MismatchError{stream, folded.Version, "the head of the stream is missing"}
}

// Save appends the recorded facts after the loaded heads, and writes the snapshots that are due.
func (s streamsTable[V]) Save(ctx context.Context, tx *sqlx.Tx) error {
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
		// A snapshot is due when the append has passed a multiple of SnapshotEvery.
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

// LoadFrom loads the states from a memory, which has no events.
func (s streamsTable[V]) LoadFrom(m consumer.Memory) error {
	for _, key := range s.takeWanted() {
		found := s.streams[key]
		ok, err := m.Row(s.kind, key, &found.state)
		if err != nil {
			return fmt.Errorf("load %s from memory: %w", s.kind, err)
		}
		if ok {
			found.count = 1
		}
	}
	return nil
}

// SaveTo stores the changed states in a memory.
func (s streamsTable[V]) SaveTo(m consumer.Memory) (changed bool, _ error) {
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
