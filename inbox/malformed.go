package inbox

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// MalformedKey begins the keys of what is parked under a hash of what came, since it has no id that
// could be trusted.
const MalformedKey = "sha256:"

// Bounds of what is kept of one source that sends what is no event.
type Bounds struct {
	Messages int   // rows
	Bytes    int64 // of their bodies and attributes
}

// ParkMalformed parks p under its key, which begins with MalformedKey, as long as what is parked of
// the same owner in this way stays within the bounds. What goes beyond is counted in one parked row
// for the owner and not kept. It tells whether p is kept, or was already. Transactions that run at
// the same time may exceed the bounds by one message each.
func (i *Inbox) ParkMalformed(ctx context.Context, tx *sqlx.Tx, p Pending, b Bounds) (kept bool,
	err error) {
	result, err := tx.ExecContext(ctx, `
		INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key, attributes, body,
			attempts, due, reason)
		SELECT $1, $2, $3, 'evidence', $4, $5, $6, $7::json, $8::bytea, $9, NULL, $10
		FROM (SELECT count(*) AS messages, coalesce(sum(octet_length(body) + pg_column_size(attributes)),
			0) AS bytes FROM pending
			WHERE consumer = $1 AND owner = $2 AND due IS NULL AND key LIKE 'sha256:%') AS there
		WHERE messages < $11 AND bytes + octet_length($8::bytea) + octet_length($7::json::text) <= $12
		ON CONFLICT DO NOTHING`,
		i.consumer, plain(p.Owner), plain(p.Key), plain(p.Type), plain(p.Exchange), plain(p.RoutingKey),
		p.Attributes, p.Body,
		p.Attempts, plain(p.Reason), b.Messages, b.Bytes)
	if err != nil {
		return false, fmt.Errorf("park %.80q: %w", p.Key, err)
	}
	if n, err := result.RowsAffected(); n == 1 || err != nil {
		return err == nil, wrap("park", err)
	}
	err = tx.GetContext(ctx, &kept, `SELECT EXISTS (SELECT FROM pending WHERE consumer = $1
		AND owner = $2 AND key = $3)`,
		i.consumer, plain(p.Owner), plain(p.Key))
	if err != nil || kept {
		return kept, wrap("park", err)
	}
	return false, i.countMalformed(ctx, tx, p, b)
}

// countMalformed counts one that is not kept. The row is inserted plainly and then updated, so that
// two transactions that are the first at the same time lose no count.
func (i *Inbox) countMalformed(ctx context.Context, tx *sqlx.Tx, p Pending, b Bounds) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key, attributes, body,
			attempts, due, reason)
		VALUES ($1, $2, 'not kept: ' || $2, 'evidence', '', $2, '', '{}', '', 0, NULL, '')
			ON CONFLICT DO NOTHING`,
		i.consumer, plain(p.Owner))
	if err == nil {
		_, err = tx.ExecContext(ctx, `UPDATE pending SET attempts = attempts + 1, updated_at = now(),
				reason = format('%s messages of %s were counted and not kept, since %s of it '
					'are parked, or %s bytes; the last one: %s',
					attempts + 1, $2::text, $3::int, $4::bigint, $5::text)
			WHERE consumer = $1 AND owner = $2 AND key = 'not kept: ' || $2`, i.consumer, plain(p.Owner),
			b.Messages, b.Bytes, plain(p.Reason))
	}
	return wrap("count what is not kept", err)
}
