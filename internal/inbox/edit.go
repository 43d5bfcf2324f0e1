package inbox

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// editSQL replaces the body of a parked row, if it still is the one that was read, and keeps the
// body that it had on record.
const editSQL = `
WITH was AS (
	SELECT owner, key, type, reason, body FROM pending WHERE consumer = $1 AND owner = $2
		AND key = $3 AND due IS NULL AND kind <> 'evidence' AND body = $4 FOR UPDATE
), done AS (
	UPDATE pending AS p SET body = $5, updated_at = now() FROM was
	WHERE p.consumer = $1 AND p.owner = was.owner AND p.key = was.key RETURNING p.key
)
INSERT INTO repairs (consumer, owner, key, type, action, operator, reason, parked_for, edited)
SELECT $1, owner, key, type, 'edit', $6, $7, reason, body FROM was WHERE key IN (SELECT key
	FROM done)
RETURNING id`

// Editor changes parked rows. It is safe for concurrent use.
type Editor struct{ inbox *Inbox }

// NewEditor returns the one of an inbox.
func NewEditor(i *Inbox) Editor { return Editor{i} }

// Edit replaces the body of a parked row, unless it has been changed, redriven or discarded since
// it was read. The record keeps the body that it had. The receipt of the event stays, so that
// a copy with the body that was published is still a duplicate.
func (e Editor) Edit(ctx context.Context, operator, reason string, read Pending,
	body []byte) (done bool, err error) {
	err = pg.InTx(ctx, e.inbox.db, func(tx *sqlx.Tx) error {
		var id int64
		err := tx.GetContext(ctx, &id, editSQL, e.inbox.consumer, read.Owner, read.Key, read.Body, body,
			storable(operator), storable(reason))
		done = err == nil
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return done, wrap("edit a parked event", err)
}

// Original returns the body with which an event was parked, if operators have edited it; nil: they
// have not.
func (e Editor) Original(ctx context.Context, owner, key string) (body []byte, err error) {
	err = e.inbox.db.GetContext(ctx, &body, `SELECT edited FROM repairs
		WHERE consumer = $1 AND owner = $2 AND key = $3 AND action = 'edit' ORDER BY id LIMIT 1`,
		e.inbox.consumer, owner, key)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return body, wrap("read the original of an edited event", err)
}
