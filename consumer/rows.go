package consumer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Rows is the working set of one table during a batch: the rows that the batch has locked, and what
// became of them. It is a field of a State, tagged with the table and its key column:
//
//	Payments consumer.Rows[string, Payment] `table:"payments" key:"order_id"`
//
// V is a struct whose fields are tagged `db:"column"`, the key among them.
//
// Rows that are there are locked from Load to the end of the transaction. A row that is not there
// cannot be: two replicas may both find it absent, and one of them is run again only if both Set
// it. So what reactions must agree on, they write to one row, such as that of the order.
type Rows[K cmp.Ordered, V any] struct {
	table, key string
	wanted     map[K]bool
	rows       map[K]*row[V]
}

type row[V any] struct {
	value  V
	there  bool // there is such a row, in the database or in the working set
	stored bool // it was in the database
	dirty  bool
}

// notLocked is the panic of Get and Set for a key that was not locked.
type notLocked struct{ table, key string }

func (n notLocked) Error() string {
	return fmt.Sprintf("row %s of %s was not locked: the function Locks must lock every row that a "+
		"reaction touches", n.key, n.table)
}

// Misuse makes the text of the panic sufficient, see engine.Misuse.
func (n notLocked) Misuse() {}

// Lock registers the key of a row that will be read or written.
func (r *Rows[K, V]) Lock(key K) {
	if _, loaded := r.rows[key]; loaded || r.wanted[key] {
		return
	}
	if r.wanted == nil {
		r.wanted = map[K]bool{}
	}
	r.wanted[key] = true
}

// Get returns the row; ok is false when there is none. It panics for a key that was not locked.
func (r *Rows[K, V]) Get(key K) (value V, ok bool) {
	found := r.row(key)
	return found.value, found.there
}

// Loaded is Get for the function Locks: before the row is loaded there is none.
func (r *Rows[K, V]) Loaded(key K) (value V, ok bool) {
	found, loaded := r.rows[key]
	if !loaded {
		return value, false
	}
	return found.value, found.there
}

// Set inserts or replaces the row. It panics for a key that was not locked.
func (r *Rows[K, V]) Set(key K, value V) {
	found := r.row(key)
	found.value, found.there, found.dirty = value, true, true
}

func (r *Rows[K, V]) row(key K) *row[V] {
	found, loaded := r.rows[key]
	if !loaded {
		panic(notLocked{table: r.table, key: fmt.Sprint(key)})
	}
	return found
}

// Table returns the loading half of the rows, for the runtime. Reactions do not need it.
func (r *Rows[K, V]) Table(table, key string) Table {
	r.table, r.key = table, key
	return rowsTable[K, V]{r}
}

// rowsTable loads and saves rows.
type rowsTable[K cmp.Ordered, V any] struct{ *Rows[K, V] }

// NeedsLoad reports whether rows are locked that are not loaded.
func (r rowsTable[K, V]) NeedsLoad() bool { return len(r.wanted) > 0 }

// absent.
func (r *Rows[K, V]) take() []K {
	keys := slices.Sorted(maps.Keys(r.wanted))
	r.wanted = nil
	if r.rows == nil {
		r.rows = map[K]*row[V]{}
	}
	for _, k := range keys {
		r.rows[k] = &row[V]{}
	}
	return keys
}

// changed returns the keys of rows to update and of rows to insert, each sorted.
func (r *Rows[K, V]) changed() (update, insert []K) {
	for _, k := range slices.Sorted(maps.Keys(r.rows)) {
		switch found := r.rows[k]; {
		case !found.dirty:
		case found.stored:
			update = append(update, k)
		default:
			insert = append(insert, k)
		}
	}
	return update, insert
}
