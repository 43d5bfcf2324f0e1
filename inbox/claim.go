package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// claimSQL goes to the due ones of each type through the index. It locks up to limit of each.
const claimSQL = `
SELECT ` + pendingColumns + ` FROM unnest($3::text[]) AS t (wanted), LATERAL (
	SELECT ` + pendingColumns + ` FROM pending WHERE consumer = $1 AND type = t.wanted AND due <= now()
	ORDER BY due, key LIMIT $2 FOR UPDATE SKIP LOCKED) AS p
ORDER BY due, key LIMIT $2`

// Claim locks up to limit things of these types that are due, oldest first, and skips those that
// another replica has in hand.
func (i *Inbox) Claim(ctx context.Context, tx *sqlx.Tx, limit int, types ...string) ([]Pending,
	error) {
	claimed, err := pick[Pending](ctx, i, tx, claimSQL, i.consumer, limit,
		append(pq.StringArray{}, types...))
	return claimed, wrap("claim due", err)
}

// Overdue lists types of which something should have been handled long ago and that are none of the
// given ones, at most a hundred.
func (i *Inbox) Overdue(ctx context.Context, known ...string) ([]string, error) {
	var types []string
	err := i.db.SelectContext(ctx, &types, `SELECT DISTINCT type FROM pending WHERE consumer = $1
		AND due < now() - $3 * interval '1 second'
		AND type <> ALL($2::text[]) ORDER BY type LIMIT 100`, i.consumer,
		append(pq.StringArray{}, known...), overdue.Seconds())
	return types, wrap("look for what is overdue", err)
}

// overdue is how late something is that nobody seems to care for.
const overdue = 5 * time.Minute

// pick selects with a statement that is kept prepared.
func pick[T any](ctx context.Context, i *Inbox, tx *sqlx.Tx, query string, args ...any) (list []T,
	err error) {
	statement, err := i.statements.In(ctx, tx, query)
	if err == nil {
		err = statement.SelectContext(ctx, &list, args...)
	}
	return list, err
}

// ClaimOne locks one thing that is due; ok is false when it is gone or in another replica's hand.
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

// Finish forgets claimed things, in the transaction of their effect, and returns how many there
// were.
func (i *Inbox) Finish(ctx context.Context, tx *sqlx.Tx, done ...Pending) (int64, error) {
	owners, keys := names(done)
	result, err := tx.ExecContext(ctx, `DELETE FROM pending AS p USING unnest($2::text[],
		$3::text[]) AS d (owner, key)
		WHERE p.consumer = $1 AND p.owner = d.owner AND p.key = d.key`, i.consumer, owners, keys)
	if err != nil {
		return 0, fmt.Errorf("finish pending: %w", err)
	}
	return result.RowsAffected()
}

// Name is what tells pending things of one consumer apart.
type Name struct{ Owner, Key string }

// FinishNamed is Finish that tells which of them were still there.
func (i *Inbox) FinishNamed(ctx context.Context, tx *sqlx.Tx, done ...Pending) (map[Name]bool,
	error) {
	taken := map[Name]bool{}
	if len(done) == 0 {
		return taken, nil
	}
	owners, keys := names(done)
	list, err := pick[Name](ctx, i, tx, `DELETE FROM pending AS p USING unnest($2::text[],
		$3::text[]) AS d (owner, key)
		WHERE p.consumer = $1 AND p.owner = d.owner AND p.key = d.key RETURNING p.owner, p.key`,
		i.consumer, owners, keys)
	for _, n := range list {
		taken[n] = true
	}
	return taken, wrap("finish pending", err)
}

// Lease makes claimed things due again after d, unless they are finished by then: for work that
// must not hold a transaction. The time until which they are leased is written into claimed: by it,
// Again knows whether the lease still holds.
func (i *Inbox) Lease(ctx context.Context, tx *sqlx.Tx, d time.Duration, claimed ...Pending) error {
	if len(claimed) == 0 {
		return nil
	}
	owners, keys := names(claimed)
	until, err := pick[time.Time](ctx, i, tx, `WITH leased AS (
			UPDATE pending AS p SET due = now() + $4 * interval '1 second'
			FROM unnest($2::text[], $3::text[]) AS d (owner, key)
			WHERE p.consumer = $1 AND p.owner = d.owner AND p.key = d.key)
		SELECT now() + $4 * interval '1 second'`, i.consumer, owners, keys, d.Seconds())
	if err != nil {
		return fmt.Errorf("lease pending: %w", err)
	}
	for n := range claimed {
		claimed[n].Due = &until[0]
	}
	return nil
}

func names(list []Pending) (owners, keys pq.StringArray) {
	for _, p := range list {
		owners, keys = append(owners, p.Owner), append(keys, p.Key)
	}
	return owners, keys
}

// Reschedule sets a claimed thing for its next attempt after a pause, or parks it. It tells whether
// it did: not when the thing is gone, or somebody else's since a lease was over.
func (i *Inbox) Reschedule(ctx context.Context, tx *sqlx.Tx, p Pending, after time.Duration,
	park bool) (done bool, err error) {
	result, err := tx.ExecContext(ctx, `UPDATE pending SET attempts = $4, reason = $5,
		updated_at = now(),
			due = CASE WHEN $6 THEN NULL ELSE now() + $7 * interval '1 second' END
		WHERE consumer = $1 AND owner = $2 AND key = $3 AND due IS NOT DISTINCT FROM $8`,
		i.consumer, p.Owner, p.Key, p.Attempts, plain(p.Reason), park, after.Seconds(), p.Due)
	if err != nil {
		return false, fmt.Errorf("set next attempt: %w", err)
	}
	n, err := result.RowsAffected()
	return n == 1, wrap("set next attempt", err)
}
