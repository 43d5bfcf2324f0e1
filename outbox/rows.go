package outbox

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// windowRows reads rows whose seqs the window has just found. The retention deletes settled rows
// only, so a missing row means a damaged index or a foreign program. The cursor must not pass it in
// silence: the term ends with ErrMissing.
func (r *Relay) windowRows(ctx context.Context, seqs []int64) ([]row, error) {
	rows, err := r.rows(ctx, seqs)
	if err != nil || len(rows) == len(seqs) {
		return rows, err
	}
	var missing []int64
	for _, seq := range seqs {
		if !slices.ContainsFunc(rows, func(found row) bool { return found.seq == seq }) {
			missing = append(missing, seq)
		}
	}
	r.anomalies.Add(1)
	return nil, fmt.Errorf("%w: %d rows, the first has seq %d; the relay reads the window again "+
		"from the last settled event. "+
		"Look for a program that deletes from the outbox, or for a damaged index (REINDEX TABLE outbox)",
		ErrMissing, len(missing), missing[0])
}

// rows reads rows by their seqs, in the order of seq. Rows that are not in the outbox are left out.
func (r *Relay) rows(ctx context.Context, seqs []int64) ([]row, error) {
	stmt, err := r.Outbox.statements.On(ctx, rowColumns+` WHERE seq = ANY($1)`)
	if err != nil {
		return nil, fmt.Errorf("fetch outbox rows: %w", err)
	}
	var found *sqlx.Rows
	if found, err = stmt.QueryxContext(ctx, pq.Int64Array(seqs)); err != nil {
		return nil, fmt.Errorf("fetch outbox rows: %w", err)
	}
	rows, err := scanRows(found)
	if err != nil {
		return nil, fmt.Errorf("fetch outbox rows: %w", err)
	}
	slices.SortFunc(rows, func(a, b row) int { return int(a.seq - b.seq) })
	return rows, nil
}
