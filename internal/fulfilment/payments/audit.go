package payments

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/admin"
)

// auditSQL compares what the accounts have paid for each order, and not got back, with its payment.
const auditSQL = `
WITH paid AS (
	SELECT payload->>'order_id' AS order_id, max(payload->>'customer') AS customer, sum((CASE type
		WHEN 'funds.withdrawn' THEN 1 ELSE -1 END) * (payload->>'amount')::bigint)::bigint AS amount
	FROM eventstore WHERE type IN ('funds.withdrawn', 'withdrawal.refunded') GROUP BY 1),
compared AS (
	SELECT coalesce(paid.order_id, p.order_id::text) AS order_id,
		coalesce(paid.customer, p.customer) AS customer, coalesce(paid.amount, 0) AS paid,
		coalesce(p.state, 'unknown') AS state, coalesce(p.amount, 0) AS amount
	FROM paid FULL JOIN (SELECT order_id, customer, state, amount FROM payments WHERE card = '') AS p
		ON p.order_id::text = paid.order_id)
SELECT order_id, customer, paid, state, amount FROM compared
WHERE paid <> CASE state WHEN 'captured' THEN amount ELSE 0 END
ORDER BY order_id`

func audit(ctx context.Context, tx *sqlx.Tx) ([]admin.Finding, error) {
	var rows []struct {
		OrderID  string `db:"order_id"`
		Customer string `db:"customer"`
		Paid     int64  `db:"paid"`
		State    string `db:"state"`
		Amount   int64  `db:"amount"`
	}
	if err := tx.SelectContext(ctx, &rows, auditSQL); err != nil {
		return nil, fmt.Errorf("audit the payments: %w", err)
	}
	list := make([]admin.Finding, len(rows))
	for i, r := range rows {
		list[i] = admin.Finding{Subject: r.OrderID, Rule: "payments are paid by the accounts",
			Detail: fmt.Sprintf("the payment is %s with %d, and the account of %s has paid %d for it",
				r.State,
				r.Amount, r.Customer, r.Paid), Next: "accounts history " + r.Customer}
	}
	return list, nil
}
