package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"
)

// Snapshot is the text of a pg_snapshot, "xmin:xmax:xip,…": which transactions were over when it
// was taken.
type Snapshot string

// Beginning is a snapshot in which no transaction was over.
const Beginning Snapshot = "3:3:"

// parts returns xmax, and the transactions below it that were still running as an array literal.
func (s Snapshot) parts() (xmax, running string) {
	fields := strings.SplitN(string(s), ":", 3)
	if len(fields) != 3 {
		return "0", "{}" // PostgreSQL refuses the snapshot itself with a better message
	}
	return fields[1], "{" + fields[2] + "}"
}

// Log names a table with the columns seq (bigint) and txid (xid8, default pg_current_xact_id()) and
// an index on (txid, seq).
type Log string

// Now returns the current snapshot as the database sees it.
func Now(ctx context.Context, q sqlx.QueryerContext) (Snapshot, error) {
	var s Snapshot
	if err := sqlx.GetContext(ctx, q, &s, `SELECT pg_current_snapshot()::text`); err != nil {
		return "", fmt.Errorf("take snapshot: %w", err)
	}
	return s, nil
}

// piece is how many seqs Pieces takes at once.
const piece = 500_000

// Pieces calls f for one range of seqs after another, from included and to not, until it has been
// through all of the log: for what would take longer in one statement than a line may be silent.
func (l Log) Pieces(ctx context.Context, q sqlx.QueryerContext,
	f func(from, to int64) error) error {
	var ends struct{ Low, High int64 }
	if err := sqlx.GetContext(ctx, q, &ends, `SELECT coalesce(min(seq), 0) AS low, coalesce(max(seq),
		-1) AS high FROM `+string(l)); err != nil {
		return fmt.Errorf("read ends of %s: %w", l, err)
	}
	for from := ends.Low; from <= ends.High; from += piece {
		if err := f(from, from+piece); err != nil {
			return err
		}
	}
	return nil
}

// Window returns the seqs after one of exactly the rows that are visible in b and not in a,
// ascending, at most so many; more tells whether there are others. No row is left out when
// transactions commit in another order than they inserted in, and nothing waits for a long
// transaction. It reads the whole window whatever most is, so most should be large.
//
// A snapshot may serve as a only once a committed transaction with an id of its own has stored it:
// after a crash PostgreSQL gives out again the transaction ids that never reached its log, and
// a snapshot held only in memory then hides rows.
func (l Log) Window(ctx context.Context, q sqlx.QueryerContext, a, b Snapshot, after int64,
	most int) (seqs []int64, more bool, err error) {
	aMax, aRunning := a.parts()
	bMax, _ := b.parts()
	// Neither ORDER BY nor LIMIT nor a condition on seq: each tempts the planner into walking the
	// primary key through all of the history. All that is done here.
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
	lowest := func() {
		slices.Sort(seqs)
		if len(seqs) > most {
			seqs, more = seqs[:most], true
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
		if seqs = append(seqs, seq); len(seqs) == 2*most {
			lowest()
		}
	}
	if err := rows.Err(); err != nil {
		return nil, false, fmt.Errorf("read window of %s: %w", l, err)
	}
	lowest()
	return seqs, more, nil
}
