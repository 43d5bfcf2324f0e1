package pg_test

import (
	"testing"
)

// A statement on a session whose rows are being read, such as a heartbeat, fails and takes none of
// these rows.
func TestRowsBeingReadAreNotLost(t *testing.T) {
	t.Parallel()
	_, db := newDatabase(t)
	conn, err := db.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	statement, err := conn.PreparexContext(t.Context(), `SELECT g FROM generate_series(1,
		$1::int) AS g`)
	if err != nil {
		t.Fatal(err)
	}
	for _, prepared := range []bool{false, true} {
		rows, err := conn.QueryxContext(t.Context(), `SELECT g FROM generate_series(1, $1::int) AS g`,
			1000)
		if prepared {
			_ = rows.Close()
			rows, err = statement.QueryxContext(t.Context(), 1000)
		}
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for rows.Next() {
			if n == 0 {
				if _, err := conn.ExecContext(t.Context(), `SELECT 1`); err == nil {
					t.Errorf("prepared %t: a statement ran between the rows of another", prepared)
				}
			}
			n++
		}
		if err := rows.Err(); err != nil || n != 1000 {
			t.Errorf("prepared %t: %d of 1000 rows (%v)", prepared, n, err)
		}
		if _, err := conn.ExecContext(t.Context(), `SELECT 1`); err != nil {
			t.Errorf("after the rows: %v", err)
		}
	}
}
