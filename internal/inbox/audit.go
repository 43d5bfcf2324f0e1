package inbox

import (
	"context"

	"github.com/jmoiron/sqlx"
)

// Contradiction is a row that contradicts another one.
type Contradiction struct {
	Subject string `db:"subject"`
	Rule    string `db:"rule"`
	Detail  string `db:"detail"`
}

// auditSQL finds rows that no program of the kit can have left like this. An event that pends
// without a row in the inbox would take effect twice if it were delivered again, and a call that is
// answered must not pend.
const auditSQL = `
SELECT coalesce(p.attributes->>'subject', '') AS subject, 'pending events are accepted' AS rule,
	format('%s %s of %s pends (%s) but is not in the inbox: delivered again, it would be handled '
		|| 'twice', p.type, p.key, p.owner, p.kind) AS detail
FROM pending AS p WHERE p.consumer = $1 AND p.kind IN ('retry', 'unknown') AND NOT EXISTS (
	SELECT FROM inbox AS i WHERE i.consumer = $1 AND i.owner = p.owner AND i.event_id =
		CASE WHEN p.key ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN p.key::uuid END)
UNION ALL
SELECT c.subject, 'answered calls do not pend',
	format('the call %s %s was answered by %s and still '
	|| 'pends: it would be made again', c.type, c.id, c.answer_type)
FROM pending AS p JOIN calls AS c ON c.consumer = p.consumer AND c.owner = p.owner
	AND c.id::text = p.key
WHERE p.consumer = $1 AND p.kind = 'call'
LIMIT $2`

// Audit returns at most limit contradictions in the snapshot of tx.
func (i *Inbox) Audit(ctx context.Context, tx *sqlx.Tx, limit int) ([]Contradiction, error) {
	var list []Contradiction
	err := tx.SelectContext(ctx, &list, auditSQL, i.consumer, limit)
	return list, wrap("audit the inbox", err)
}
