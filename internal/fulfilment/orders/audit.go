package orders

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/admin"
)

// auditSQL compares the amount of each order with its lines, and finds orders that did not end by
// their deadline. An hour is far more than the deadlines of a service that was away take.
const auditSQL = `
WITH summed AS (
	SELECT order_id, state, adopted, amount, deadline, (SELECT coalesce(sum((line->>'quantity')::bigint
		* (line->>'unit_price')::bigint), 0)::bigint FROM json_array_elements(lines) AS line) AS lines
	FROM orders)
SELECT order_id::text, 'the amount is the sum of the lines' AS rule, format(
	'the amount is %s, its lines make %s', amount, lines) AS detail
FROM summed WHERE amount <> lines AND NOT adopted
UNION ALL
SELECT order_id::text, 'orders end by their deadline', format(
	'it is still %s, an hour after its deadline %s', state, deadline)
FROM summed WHERE state = 'placed' AND deadline < now() - interval '1 hour'
ORDER BY order_id`

func audit(ctx context.Context, tx *sqlx.Tx) ([]admin.Finding, error) {
	var rows []struct {
		OrderID string `db:"order_id"`
		Rule    string `db:"rule"`
		Detail  string `db:"detail"`
	}
	if err := tx.SelectContext(ctx, &rows, auditSQL); err != nil {
		return nil, fmt.Errorf("audit the orders: %w", err)
	}
	list := make([]admin.Finding, len(rows))
	for i, r := range rows {
		list[i] = admin.Finding{Subject: r.OrderID, Rule: r.Rule, Detail: r.Detail,
			Next: "where " + r.OrderID}
	}
	return list, nil
}
