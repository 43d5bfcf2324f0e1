package consumer

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/jmoiron/sqlx/reflectx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// Set is one field of a State: the rows of a table, or what else has keys that a reaction locks.
// Rows is the one for a plain table; eventstore.Streams is another.
type Set interface {
	// Table returns what loads and saves the set. The runtime calls it with the tags of the field.
	Table(table, key string) Table
}

// Table loads and saves a Set. Load must lock what it reads, in one order, and Save must never
// upsert, since a row that does not exist cannot be locked: when a plain insert meets a row, Save
// returns an error that wraps pg.ErrRaced, and the batch runs again on what is there.
type Table interface {
	NeedsLoad() bool                              // keys are locked that are not loaded
	Load(ctx context.Context, tx *sqlx.Tx) error  // load and lock them
	Save(ctx context.Context, tx *sqlx.Tx) error  // write what has changed
	LoadFrom(memory Memory) error                 // Load from a memory instead
	SaveTo(memory Memory) (changed bool, _ error) // Save to a memory instead
}

var mapper = reflectx.NewMapper("db")

// columns returns the tagged fields of V in their order.
func columns[V any]() []*reflectx.FieldInfo {
	var fields []*reflectx.FieldInfo
	for _, f := range mapper.TypeMap(reflect.TypeFor[V]()).Index {
		if f.Field.Tag.Get("db") != "" && len(f.Index) == 1 {
			fields = append(fields, f)
		}
	}
	return fields
}

// validate refuses a row type without a field for the key.
func (r rowsTable[K, V]) validate() error {
	for _, f := range columns[V]() {
		if f.Name == r.key {
			return nil
		}
	}
	return fmt.Errorf("rows of %s: no field of %s is tagged db:%q", r.table, reflect.TypeFor[V](),
		r.key)
}

// Load locks and reads the wanted rows in one statement, sorted by key, so that locks are always
// taken in one order.
func (r rowsTable[K, V]) Load(ctx context.Context, tx *sqlx.Tx) error {
	keys := r.take()
	fields := columns[V]()
	names := make([]string, len(fields))
	keyField := -1
	for i, f := range fields {
		names[i] = f.Name
		if f.Name == r.key {
			keyField = i
		}
	}
	if keyField < 0 {
		return fmt.Errorf("load %s: no field is tagged db:%q", r.table, r.key)
	}
	array, err := arrayOf(keys)
	if err != nil {
		return fmt.Errorf("load %s: %w", r.table, err)
	}
	query, err := pg.Prepared(ctx, tx, "SELECT "+strings.Join(names, ", ")+" FROM "+r.table+
		" WHERE "+r.key+" = ANY($1) ORDER BY "+r.key+" FOR UPDATE")
	if err != nil {
		return fmt.Errorf("load %s: %w", r.table, err)
	}
	result, err := query.Query(ctx, array)
	if err != nil {
		return fmt.Errorf("load %s: %w", r.table, err)
	}
	defer func() { _ = result.Close() }()
	into := make([]any, len(fields))
	for result.Next() {
		var value V
		v := reflect.ValueOf(&value).Elem()
		for i, f := range fields {
			into[i] = v.Field(f.Index[0]).Addr().Interface()
		}
		if err := result.Scan(into...); err != nil {
			return fmt.Errorf("load %s: %w", r.table, err)
		}
		key, ok := reflect.TypeAssert[K](v.Field(fields[keyField].Index[0]))
		found := r.rows[key]
		if !ok || found == nil {
			return fmt.Errorf("load %s: key %v was not locked in this spelling", r.table,
				v.Field(fields[keyField].Index[0]))
		}
		found.value, found.there, found.stored = value, true, true
	}
	if err := result.Err(); err != nil {
		return fmt.Errorf("load %s: %w", r.table, err)
	}
	return nil
}

// Save updates rows that were there and inserts rows that were not, each in one statement.
func (r rowsTable[K, V]) Save(ctx context.Context, tx *sqlx.Tx) error {
	update, insert := r.changed()
	if len(update)+len(insert) == 0 {
		return nil
	}
	types, err := pg.ColumnTypes(ctx, tx, r.table)
	if err != nil {
		return fmt.Errorf("save %s: %w", r.table, err)
	}
	fields := columns[V]()
	names, casts, sets := make([]string, len(fields)), make([]string, len(fields)), []string{}
	for i, f := range fields {
		names[i] = f.Name
		casts[i] = fmt.Sprintf("$%d::%s[]", i+1, types[f.Name])
		if f.Name != r.key {
			sets = append(sets, f.Name+" = d."+f.Name)
		}
	}
	list, from := strings.Join(names, ", "), "unnest("+strings.Join(casts, ", ")+")"
	if len(update) > 0 {
		n, err := r.write(ctx, tx, "UPDATE "+r.table+" AS t SET "+strings.Join(sets, ", ")+" FROM "+from+
			" AS d ("+list+") WHERE t."+r.key+" = d."+r.key, update, fields)
		if err == nil && n != int64(len(update)) {
			err = fmt.Errorf("%d of %d rows are there", n, len(update))
		}
		if err != nil {
			return fmt.Errorf("update %s: %w", r.table, err)
		}
	}
	if len(insert) > 0 {
		_, err := r.write(ctx, tx, "INSERT INTO "+r.table+" ("+list+") SELECT "+list+" FROM "+from+
			" AS d ("+list+")", insert, fields)
		if pg.IsUniqueViolation(err) {
			return fmt.Errorf("insert %s: %w: %w", r.table, pg.ErrRaced, err)
		}
		if err != nil {
			return fmt.Errorf("insert %s: %w", r.table, err)
		}
	}
	return nil
}

// write runs a statement with one array for each column.
func (r *Rows[K, V]) write(ctx context.Context, tx *sqlx.Tx, query string, keys []K,
	fields []*reflectx.FieldInfo) (int64, error) {
	args := make([]any, len(fields))
	for i, f := range fields {
		values := make([]any, len(keys))
		for n, k := range keys {
			values[n] = reflect.ValueOf(&r.rows[k].value).Elem().Field(f.Index[0]).Interface()
		}
		array, err := pg.Array(values...)
		if err != nil {
			return 0, fmt.Errorf("column %s: %w", f.Name, err)
		}
		args[i] = array
	}
	statement, err := pg.Prepared(ctx, tx, query)
	if err != nil {
		return 0, err
	}
	return statement.Exec(ctx, args...)
}

func arrayOf[K any](keys []K) (string, error) {
	values := make([]any, len(keys))
	for i, k := range keys {
		values[i] = k
	}
	return pg.Array(values...)
}
