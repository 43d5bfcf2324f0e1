package inbox

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// MalformedKey is the prefix of the key of a malformed message. The rest of the key is a hash of
// the message, which has no id that could be trusted.
const MalformedKey = "sha256:"

// Bounds limits how many malformed messages of one owner are stored.
type Bounds struct {
	Messages int   // rows
	Bytes    int64 // of their bodies and attributes
}

// ParkMalformed parks a malformed message, whose key has the prefix MalformedKey, if the malformed
// messages of the same owner stay within the bounds. Otherwise it does not store the message, and
// counts it in one parked row of the owner. It returns true if the message is stored or was stored
// before. Each concurrent transaction may exceed the bounds by one message.
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
		i.consumer, storable(p.Owner), storable(p.Key), storable(p.Type), storable(p.Exchange),
		storable(p.RoutingKey),
		p.Attributes, p.Body,
		p.Attempts, storable(p.Reason), b.Messages, b.Bytes)
	if err != nil {
		return false, fmt.Errorf("park %.80q: %w", p.Key, err)
	}
	if n, err := result.RowsAffected(); n == 1 || err != nil {
		return err == nil, wrap("park", err)
	}
	err = tx.GetContext(ctx, &kept, `SELECT EXISTS (SELECT FROM pending WHERE consumer = $1
		AND owner = $2 AND key = $3)`,
		i.consumer, storable(p.Owner), storable(p.Key))
	if err != nil || kept {
		return kept, wrap("park", err)
	}
	return false, i.countMalformed(ctx, tx, p, b)
}

// countMalformed counts a message that is not stored. It inserts the row if it is missing and then
// updates it, so that no count is lost if two transactions are the first at the same time.
func (i *Inbox) countMalformed(ctx context.Context, tx *sqlx.Tx, p Pending, b Bounds) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key, attributes, body,
			attempts, due, reason)
		VALUES ($1, $2, 'not kept: ' || $2, 'evidence', '', $2, '', '{}', '', 0, NULL, '')
			ON CONFLICT DO NOTHING`,
		i.consumer, storable(p.Owner))
	if err == nil {
		_, err = tx.ExecContext(ctx, `UPDATE pending SET attempts = attempts + 1, updated_at = now(),
				reason = format('%s messages of %s were counted but not stored, because the bound of %s '
					'parked messages or %s bytes was reached; the last one: %s',
					attempts + 1, $2::text, $3::int, $4::bigint, $5::text)
			WHERE consumer = $1 AND owner = $2 AND key = 'not kept: ' || $2`, i.consumer, storable(p.Owner),
			b.Messages, b.Bytes, storable(p.Reason))
	}
	return wrap("count a malformed message", err)
}
