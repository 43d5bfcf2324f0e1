package pg

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Identity names a database: the system identifier of its server, and its own number there. Two
// databases have two identities, also when one was restored from a dump of the other. A physical
// copy of a server has the identities of the original. Restoring or upgrading a database changes
// its identity.
func Identity(ctx context.Context, db *sqlx.DB) (identity string, err error) {
	err = db.GetContext(ctx, &identity, `SELECT c.system_identifier || '/' || d.oid
		FROM pg_control_system() AS c, pg_database AS d WHERE d.datname = current_database()`)
	if err != nil {
		return "", fmt.Errorf("identify the database: %w", err)
	}
	return identity, nil
}
