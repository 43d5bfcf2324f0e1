package pg

import (
	"database/sql/driver"
	"fmt"

	"github.com/go-json-experiment/json"
)

// JSON is the value of a column of type json or jsonb.
type JSON[T any] struct{ V T }

// MarshalJSON encodes the value alone.
func (j JSON[T]) MarshalJSON() ([]byte, error) {
	return json.Marshal(j.V, json.Deterministic(true))
}

// UnmarshalJSON decodes a value that MarshalJSON encoded.
func (j *JSON[T]) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &j.V) }

// Value encodes the value; it implements driver.Valuer.
func (j JSON[T]) Value() (driver.Value, error) {
	data, err := json.Marshal(j.V, json.Deterministic(true))
	return string(data), err
}

// Scan decodes the column; it implements sql.Scanner. NULL leaves the zero value.
func (j *JSON[T]) Scan(src any) error {
	var zero T
	j.V = zero
	switch data := src.(type) {
	case nil:
		return nil
	case []byte:
		return json.Unmarshal(data, &j.V)
	case string:
		return json.Unmarshal([]byte(data), &j.V)
	}
	return fmt.Errorf("scan JSON column: want bytes or text, got %T", src)
}
