package inbox

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// OtherThan returns another consumer whose events are in the inbox of a database, if the given
// consumer has none there. It returns "" if there is no other one.
func OtherThan(ctx context.Context, db *sqlx.DB, consumer string) (string, error) {
	var others []string
	err := db.SelectContext(ctx, &others, `SELECT consumer FROM inbox WHERE NOT EXISTS (SELECT
		FROM inbox WHERE consumer = $1) LIMIT 1`, consumer)
	if err != nil {
		return "", fmt.Errorf("look for other consumers in the inbox: %w", err)
	}
	if len(others) == 0 {
		return "", nil
	}
	return others[0], nil
}
