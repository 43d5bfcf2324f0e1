package inbox

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// claimSQL finds the due rows of each type through the index. It locks up to a number of each.
const claimSQL = `
SELECT ` + pendingColumns + ` FROM unnest($3::text[], $4::int[]) AS t (wanted, most), LATERAL (
	SELECT ` + pendingColumns + ` FROM pending WHERE consumer = $1 AND type = t.wanted AND due <= now()
	ORDER BY due, key LIMIT t.most FOR UPDATE SKIP LOCKED) AS p
ORDER BY due, key LIMIT $2`

// Claim locks up to limit due rows of the given types, oldest first, and skips rows that another
// replica has locked.
func (i *Inbox) Claim(ctx context.Context, tx *sqlx.Tx, limit int, types ...string) ([]Pending,
	error) {
	most := make(map[string]int, len(types))
	for _, t := range types {
		most[t] = limit
	}
	return i.ClaimEach(ctx, tx, limit, most)
}

// ClaimEach is Claim with a limit for each type too.
func (i *Inbox) ClaimEach(ctx context.Context, tx *sqlx.Tx, limit int,
	most map[string]int) ([]Pending, error) {
	types, limits := pq.StringArray{}, pq.Int64Array{}
	for _, t := range slices.Sorted(maps.Keys(most)) {
		types, limits = append(types, t), append(limits, int64(most[t]))
	}
	claimed, err := selectPrepared[Pending](ctx, i, tx, claimSQL, i.consumer, limit, types, limits)
	return claimed, wrap("claim due", err)
}

// Overdue returns at most a hundred types, other than the known ones, with a row that has been due
// for long.
func (i *Inbox) Overdue(ctx context.Context, known ...string) ([]string, error) {
	var types []string
	err := i.db.SelectContext(ctx, &types, `SELECT DISTINCT type FROM pending WHERE consumer = $1
		AND due < now() - $3 * interval '1 second'
		AND type <> ALL($2::text[]) ORDER BY type LIMIT 100`, i.consumer,
		append(pq.StringArray{}, known...), overdueAfter.Seconds())
	return types, wrap("list overdue types", err)
}

// overdueAfter is how long a row must be due before Overdue reports its type.
const overdueAfter = 5 * time.Minute

// selectPrepared runs a query as a statement that stays prepared.
func selectPrepared[T any](ctx context.Context, i *Inbox, tx *sqlx.Tx, query string,
	args ...any) (list []T,
	err error) {
	statement, err := i.statements.In(ctx, tx, query)
	if err == nil {
		err = statement.SelectContext(ctx, &list, args...)
	}
	return list, err
}

// ClaimOne locks one due row; ok is false if it is gone or another replica has locked it.
func (i *Inbox) ClaimOne(ctx context.Context, tx *sqlx.Tx, owner, key string) (p Pending, ok bool,
	err error) {
	var claimed []Pending
	err = tx.SelectContext(ctx, &claimed, `SELECT `+pendingColumns+` FROM pending
		WHERE consumer = $1 AND owner = $2 AND key = $3 AND due <= now() FOR UPDATE SKIP LOCKED`,
		i.consumer, owner, key)
	if err != nil || len(claimed) == 0 {
		return Pending{}, false, wrap("claim due", err)
	}
	return claimed[0], true, nil
}

// Finish deletes claimed rows in the transaction of their effect, and returns how many of them
// still existed.
func (i *Inbox) Finish(ctx context.Context, tx *sqlx.Tx, done ...Pending) (int64, error) {
	owners, keys := keysOf(done)
	result, err := tx.ExecContext(ctx, `DELETE FROM pending AS p USING unnest($2::text[],
		$3::text[]) AS d (owner, key)
		WHERE p.consumer = $1 AND p.owner = d.owner AND p.key = d.key`, i.consumer, owners, keys)
	if err != nil {
		return 0, fmt.Errorf("finish pending: %w", err)
	}
	return result.RowsAffected()
}

// Name identifies a pending row of one consumer.
type Name struct{ Owner, Key string }

// FinishNamed does the same as Finish and returns which of the rows still existed.
func (i *Inbox) FinishNamed(ctx context.Context, tx *sqlx.Tx, done ...Pending) (map[Name]bool,
	error) {
	finished := map[Name]bool{}
	if len(done) == 0 {
		return finished, nil
	}
	owners, keys := keysOf(done)
	list, err := selectPrepared[Name](ctx, i, tx, `DELETE FROM pending AS p USING unnest($2::text[],
		$3::text[]) AS d (owner, key)
		WHERE p.consumer = $1 AND p.owner = d.owner AND p.key = d.key RETURNING p.owner, p.key`,
		i.consumer, owners, keys)
	for _, n := range list {
		finished[n] = true
	}
	return finished, wrap("finish pending", err)
}

// Lease makes claimed rows due again after d, unless they are finished by then. It is for work that
// must not keep a transaction open. It sets Due of each claimed row to the end of the lease, from
// which Reschedule detects that a lease has expired.
func (i *Inbox) Lease(ctx context.Context, tx *sqlx.Tx, d time.Duration, claimed ...Pending) error {
	if len(claimed) == 0 {
		return nil
	}
	owners, keys := keysOf(claimed)
	leasedUntil, err := selectPrepared[time.Time](ctx, i, tx, `WITH leased AS (
			UPDATE pending AS p SET due = now() + $4 * interval '1 second'
			FROM unnest($2::text[], $3::text[]) AS d (owner, key)
			WHERE p.consumer = $1 AND p.owner = d.owner AND p.key = d.key)
		SELECT now() + $4 * interval '1 second'`, i.consumer, owners, keys, d.Seconds())
	if err != nil {
		return fmt.Errorf("lease pending: %w", err)
	}
	for n := range claimed {
		claimed[n].Due = &leasedUntil[0]
	}
	return nil
}

func keysOf(list []Pending) (owners, keys pq.StringArray) {
	for _, p := range list {
		owners, keys = append(owners, p.Owner), append(keys, p.Key)
	}
	return owners, keys
}

// Reschedule makes a claimed row due after a pause, or parks it. It returns false if the row is
// gone, or if its lease has expired and another replica has claimed it.
func (i *Inbox) Reschedule(ctx context.Context, tx *sqlx.Tx, p Pending, after time.Duration,
	park bool) (done bool, err error) {
	result, err := tx.ExecContext(ctx, `UPDATE pending SET attempts = $4, reason = $5,
		updated_at = now(),
			due = CASE WHEN $6 THEN NULL ELSE now() + $7 * interval '1 second' END
		WHERE consumer = $1 AND owner = $2 AND key = $3 AND due IS NOT DISTINCT FROM $8`,
		i.consumer, p.Owner, p.Key, p.Attempts, storable(p.Reason), park, after.Seconds(), p.Due)
	if err != nil {
		return false, fmt.Errorf("reschedule pending: %w", err)
	}
	n, err := result.RowsAffected()
	return n == 1, wrap("reschedule pending", err)
}
