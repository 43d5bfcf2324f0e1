package inventory

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/admin"
)

// auditSQL compares the stock of each article with the sums of its reservations.
const auditSQL = `
WITH sums AS (
	SELECT line->>'sku' AS sku,
		sum((line->>'quantity')::bigint) FILTER (WHERE state = 'reserved') AS reserved,
		sum((line->>'quantity')::bigint) FILTER (WHERE state = 'committed') AS committed
	FROM reservations CROSS JOIN json_array_elements(lines) AS line
	WHERE state IN ('reserved', 'committed') GROUP BY 1),
compared AS (
	SELECT sku, coalesce(stock.reserved, 0) AS reserved, coalesce(stock.committed, 0) AS committed,
		coalesce(sums.reserved, 0)::bigint AS in_reserved,
		coalesce(sums.committed, 0)::bigint AS in_committed
	FROM stock FULL JOIN sums USING (sku))
SELECT sku, reserved, committed, in_reserved, in_committed FROM compared
WHERE reserved <> in_reserved OR committed <> in_committed ORDER BY sku`

func audit(ctx context.Context, tx *sqlx.Tx) ([]admin.Finding, error) {
	var rows []struct {
		SKU         string `db:"sku"`
		Reserved    int64  `db:"reserved"`
		Committed   int64  `db:"committed"`
		InReserved  int64  `db:"in_reserved"`
		InCommitted int64  `db:"in_committed"`
	}
	if err := tx.SelectContext(ctx, &rows, auditSQL); err != nil {
		return nil, fmt.Errorf("audit the stock: %w", err)
	}
	list := make([]admin.Finding, len(rows))
	for i, r := range rows {
		list[i] = admin.Finding{Rule: "stock is the sum of the reservations", Detail: fmt.Sprintf(
			"of %s the stock has %d reserved and %d committed, the reservations have %d and %d", r.SKU,
			r.Reserved, r.Committed, r.InReserved, r.InCommitted), Next: "stock list"}
	}
	return list, nil
}
