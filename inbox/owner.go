package inbox

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// OtherThan returns a consumer that has used the inbox of a database in which the given one has
// not; it is empty when there is none.
func OtherThan(ctx context.Context, db *sqlx.DB, consumer string) (string, error) {
	var others []string
	err := db.SelectContext(ctx, &others, `SELECT consumer FROM inbox WHERE NOT EXISTS (SELECT
		FROM inbox WHERE consumer = $1) LIMIT 1`, consumer)
	if err != nil {
		return "", fmt.Errorf("look for who has used the inbox: %w", err)
	}
	if len(others) == 0 {
		return "", nil
	}
	return others[0], nil
}
