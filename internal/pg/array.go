package pg

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
)

// Array returns an array literal of values, for a parameter that the statement casts to the type of
// the array. Each value has a type that database/sql accepts: driver.Valuer, string, number,
// boolean, time, bytes, a pointer to one of them, or nil.
func Array(values ...any) (string, error) {
	b := make([]byte, 0, 16*len(values)+2)
	b = append(b, '{')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		plain, err := driver.DefaultParameterConverter.ConvertValue(v)
		if err != nil {
			return "", fmt.Errorf("array element %s: %w", reflect.TypeOf(v), err)
		}
		switch x := plain.(type) {
		case nil:
			b = append(b, "NULL"...)
		case string:
			b = appendQuoted(b, x)
		case int64:
			b = strconv.AppendInt(b, x, 10)
		case bool:
			b = strconv.AppendBool(b, x)
		case float64:
			b = appendQuoted(b, strconv.FormatFloat(x, 'g', -1, 64))
		case time.Time:
			b = appendQuoted(b, x.Format(time.RFC3339Nano))
		case []byte:
			b = appendQuoted(b, `\x`+hex.EncodeToString(x))
		}
	}
	return string(append(b, '}')), nil
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// ColumnTypes returns the types of a table's columns. If the context carries statements (see
// WithStatements), they cache the types until a migration outdates them.
func ColumnTypes(ctx context.Context, tx *sqlx.Tx, table string) (map[string]string, error) {
	s, cached := ctx.Value(statementsKey{}).(*Statements)
	var generation int64
	if cached {
		generation = s.generation()
		if types := s.knownTypes(table); types != nil {
			return types, nil
		}
	}
	rows, err := tx.QueryContext(ctx, `SELECT attname, format_type(atttypid, atttypmod)
		FROM pg_attribute
		WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`, table)
	if err != nil {
		return nil, fmt.Errorf("types of %s: %w", table, err)
	}
	defer func() { _ = rows.Close() }()
	types := map[string]string{}
	for rows.Next() {
		var name, kind string
		if err := rows.Scan(&name, &kind); err != nil {
			return nil, fmt.Errorf("types of %s: %w", table, err)
		}
		types[name] = kind
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("types of %s: %w", table, err)
	}
	if cached {
		s.keepTypes(table, types, generation)
	}
	return types, nil
}
