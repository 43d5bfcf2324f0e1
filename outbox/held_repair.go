package outbox

import (
	"context"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// repairHeldSQL reads the first held row of the next aggregates after $1, and makes those due that
// are of kind behind. Such a row waits for nothing, and nothing would ever make it due; an earlier
// release of the relay could leave rows like that.
const repairHeldSQL = `
WITH RECURSIVE head AS (
	(SELECT aggregate, seq, kind, 1 AS n FROM outbox_held WHERE aggregate > $1 ORDER BY aggregate,
		seq LIMIT 1)
	UNION ALL
	SELECT next.*, n + 1 FROM head, LATERAL (
		SELECT aggregate, seq, kind FROM outbox_held AS h WHERE h.aggregate > head.aggregate
			ORDER BY aggregate, seq LIMIT 1) AS next
	WHERE n < $2
), repaired AS (
	UPDATE outbox_held AS h SET due = now() FROM head
	WHERE head.kind = 'behind' AND h.seq = head.seq AND h.kind = 'behind' AND h.due = 'infinity'
)
SELECT max(aggregate) AS reached FROM head`

// repairHeld repairs the held rows of all aggregates once in each term, next to the publishing.
func (r *Relay) repairHeld(ctx context.Context, lead *pg.Lead) {
	for after := ""; ctx.Err() == nil; {
		var reached *string
		err := lead.Tx(ctx, func(tx pg.Fenced) error {
			return tx.Tx().GetContext(ctx, &reached, repairHeldSQL, after, maxRepaired)
		})
		if err != nil && ctx.Err() == nil {
			r.Log.Warn().Err(err).Msg("the order of held events is not checked, the next leader does it")
		}
		if err != nil || reached == nil {
			return
		}
		after = *reached
	}
}
