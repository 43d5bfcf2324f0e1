package consumer

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/quadrille-go/quadrille/events"
)

// Memory is a database of a participant in memory: tables of rows as JSON, by their keys. It is
// what package check and unit tests run reactions on.
type Memory map[string]map[string]string

// Clone returns a copy that can change apart from m.
func (m Memory) Clone() Memory {
	c := make(Memory, len(m))
	for table, rows := range m {
		c[table] = maps.Clone(rows)
	}
	return c
}

// String lists every row in one order: equal memories have equal strings.
func (m Memory) String() string {
	var b strings.Builder
	for _, table := range slices.Sorted(maps.Keys(m)) {
		for _, key := range slices.Sorted(maps.Keys(m[table])) {
			fmt.Fprintf(&b, "%s %s %s\n", table, key, m[table][key])
		}
	}
	return b.String()
}

// Put stores a row, for the beginning of a test.
func (m Memory) Put(table string, key any, row any) error {
	data, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("put %s: %w", table, err)
	}
	if m[table] == nil {
		m[table] = map[string]string{}
	}
	m[table][fmt.Sprint(key)] = string(data)
	return nil
}

// Row reads a row into value; ok is false when there is none.
func (m Memory) Row(table string, key any, value any) (ok bool, err error) {
	data, ok := m[table][fmt.Sprint(key)]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal([]byte(data), value)
}

// LoadFrom loads the wanted rows from memory.
func (r rowsTable[K, V]) LoadFrom(m Memory) error {
	for _, k := range r.take() {
		found := r.rows[k]
		ok, err := m.Row(r.table, k, &found.value)
		if err != nil {
			return fmt.Errorf("recall %s: %w", r.table, err)
		}
		found.there, found.stored = ok, ok
	}
	return nil
}

// SaveTo stores what has changed in memory, and reports whether anything has.
func (r rowsTable[K, V]) SaveTo(m Memory) (changed bool, _ error) {
	update, insert := r.changed()
	for _, k := range append(update, insert...) {
		if err := m.Put(r.table, k, r.rows[k].value); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

// Reactor is a participant without its type parameter, on a memory: what package check explores.
type Reactor struct {
	Name string
	// React applies one event to m and returns its effects. On an error m is as it was.
	React func(m Memory, e events.Event) (Effects, error)
	// Types are those of the events that it reacts to. nil: any.
	Types []string
}

// Reactor returns the participant as a Reactor.
func (p Participant[S]) Reactor() Reactor {
	return Reactor{Name: p.Name, Types: p.Handler().Types(),
		React: func(m Memory, e events.Event) (Effects, error) {
			_, results, err := p.ApplyTo(m, e)
			if err != nil {
				return Effects{}, err
			}
			return results[0].Effects, nil
		}}
}
