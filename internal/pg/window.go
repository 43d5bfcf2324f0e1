package pg

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"
)

// Snapshot is the text of a pg_snapshot, "xmin:xmax:xip,…". It records which transactions had ended
// when it was taken.
type Snapshot string

// Beginning is a snapshot in which no transaction had ended.
const Beginning Snapshot = "3:3:"

// parts returns xmax and, as an array literal, the transactions below it that were still running.
func (s Snapshot) parts() (xmax, running string) {
	fields := strings.SplitN(string(s), ":", 3)
	if len(fields) != 3 {
		return "0", "{}" // PostgreSQL refuses the snapshot with a better message
	}
	return fields[1], "{" + fields[2] + "}"
}

// Log is the name of a table with the columns seq (bigint) and txid (xid8, default
// pg_current_xact_id()) and an index on (txid, seq).
type Log string

// Now returns the current snapshot of the database.
func Now(ctx context.Context, q sqlx.QueryerContext) (Snapshot, error) {
	var s Snapshot
	if err := sqlx.GetContext(ctx, q, &s, `SELECT pg_current_snapshot()::text`); err != nil {
		return "", fmt.Errorf("take snapshot: %w", err)
	}
	return s, nil
}

// pieceSize is how many seqs one call of Pieces' function covers.
const pieceSize = 500_000

// Pieces calls f for consecutive ranges of seqs, including from and excluding to, until they have
// covered the whole log. Use it for work that would take longer in one statement than a connection
// may be silent.
func (l Log) Pieces(ctx context.Context, q sqlx.QueryerContext,
	f func(from, to int64) error) error {
	var ends struct{ Low, High int64 }
	if err := sqlx.GetContext(ctx, q, &ends, `SELECT coalesce(min(seq), 0) AS low, coalesce(max(seq),
		-1) AS high FROM `+string(l)); err != nil {
		return fmt.Errorf("read ends of %s: %w", l, err)
	}
	for from := ends.Low; from <= ends.High; from += pieceSize {
		if err := f(from, from+pieceSize); err != nil {
			return err
		}
	}
	return nil
}

// Window returns the seqs, in ascending order, of exactly the rows that are visible in snapshot b
// and not in snapshot a. It returns only seqs above after and at most limit of them; more reports
// whether further ones exist. No row is missed if transactions commit in another order than they
// inserted, and no long transaction delays the result. Each call reads the whole window, so limit
// should be large.
//
// A snapshot may serve as a only after a committed transaction with an id of its own has stored it.
// After a crash PostgreSQL assigns the transaction ids that never reached its WAL a second time,
// and a snapshot that was only in memory would then hide rows.
func (l Log) Window(ctx context.Context, q sqlx.QueryerContext, a, b Snapshot, after int64,
	limit int) (seqs []int64, more bool, err error) {
	aMax, aRunning := a.parts()
	bMax, _ := b.parts()
	// The query has no ORDER BY, no LIMIT and no condition on seq: with each of them the planner
	// may walk the primary key through the whole history. The code below sorts and cuts instead.
	rows, err := q.QueryxContext(ctx, `
		SELECT seq FROM `+string(l)+` WHERE txid >= $1::xid8 AND txid < $2::xid8
			AND pg_visible_in_snapshot(txid, $4::pg_snapshot)
		UNION ALL
		SELECT seq FROM `+string(l)+` WHERE txid = ANY($3::xid8[]) AND pg_visible_in_snapshot(txid,
			$4::pg_snapshot)`,
		aMax, bMax, aRunning, string(b))
	if err != nil {
		return nil, false, fmt.Errorf("read window of %s: %w", l, err)
	}
	defer func() { _ = rows.Close() }()
	keepLowest := func() {
		slices.Sort(seqs)
		if len(seqs) > limit {
			seqs, more = seqs[:limit], true
		}
	}
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			return nil, false, fmt.Errorf("read window of %s: %w", l, err)
		}
		if seq <= after {
			continue
		}
		if seqs = append(seqs, seq); len(seqs) == 2*limit {
			keepLowest()
		}
	}
	if err := rows.Err(); err != nil {
		return nil, false, fmt.Errorf("read window of %s: %w", l, err)
	}
	keepLowest()
	return seqs, more, nil
}
