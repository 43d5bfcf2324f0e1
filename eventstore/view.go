package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// BlockedError means that the view of a projection cannot be switched to the rebuilt table, because
// of an object that depends on the view or because of its owner.
type BlockedError struct{ View, Why string }

func (e *BlockedError) Error() string {
	return fmt.Sprintf(
		"view %s cannot be switched to its rebuilt table: %s; drop the objects that depend on it, or "+
			"make the service's role its owner, and restore both when the projection is rebuilt", e.View,
		e.Why)
}

// switchView points the view of a projection to a generation. It replaces the view in place, which
// keeps its owner, its grants and the objects that depend on it. If the columns do not permit that,
// it drops the view and creates it with the same owner and grants; then no object may depend on it.
func switchView(ctx context.Context, tx *sqlx.Tx, name string, number int) error {
	table := tableOf(name, number)
	var old []string
	// The view selects all columns, since the table has exactly those of the projection.
	if err := tx.SelectContext(ctx, &old, viewPropertiesSQL, name, table); err != nil {
		return fmt.Errorf("read the grants of %s: %w", name, err)
	}
	view := `VIEW ` + name + ` AS SELECT * FROM ` + table
	err := inSavepoint(ctx, tx, `CREATE OR REPLACE `+view)
	if sqlState(err) == "42P16" { // the columns do not only have additions at the end
		err = inSavepoint(ctx, tx, `DROP VIEW `+name+`; CREATE `+view)
	}
	for _, statement := range old {
		if err == nil {
			err = inSavepoint(ctx, tx, statement)
		}
	}
	return asBlocked(name, err)
}

// viewPropertiesSQL returns the statements that give a new view the properties of the old one: its
// owner, its grants and those on its columns, its options and its comment. They also grant the
// owner the right to read the table.
const viewPropertiesSQL = `
WITH view AS (SELECT oid, relname, relowner, relacl, reloptions FROM pg_class
	WHERE oid = to_regclass($1)),
acl AS (
	SELECT '' AS of, a.* FROM view, aclexplode(relacl) AS a WHERE a.grantee <> relowner
	UNION ALL
	SELECT format(' (%I)', attname), a.* FROM view JOIN pg_attribute ON attrelid = oid
		AND NOT attisdropped, aclexplode(attacl) AS a
	WHERE a.grantee <> relowner AND attname IN (SELECT attname FROM pg_attribute
		WHERE attrelid = to_regclass($2))
)
SELECT format('GRANT SELECT ON %I TO %s', $2::text, relowner::regrole) FROM view
	WHERE relowner <> current_user::regrole
UNION ALL SELECT format('ALTER VIEW %I OWNER TO %s', relname, relowner::regrole) FROM view
	WHERE relowner <> current_user::regrole
UNION ALL SELECT format('ALTER VIEW %I SET (%s)', relname, array_to_string(reloptions, ', '))
	FROM view WHERE reloptions IS NOT NULL
UNION ALL SELECT format('COMMENT ON VIEW %I IS %L', relname, obj_description(oid, 'pg_class'))
	FROM view
	WHERE obj_description(oid, 'pg_class') IS NOT NULL
UNION ALL SELECT format('GRANT %s%s ON %I TO %s%s', privilege_type, of, relname,
	CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, CASE
		WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
	FROM acl, view`

// inSavepoint runs statements. If they fail, the transaction continues without them: without
// a savepoint, PostgreSQL would refuse every further statement of the transaction.
func inSavepoint(ctx context.Context, tx *sqlx.Tx, statements string) error {
	if _, err := tx.ExecContext(ctx, `SAVEPOINT attempt`); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, statements)
	if err != nil {
		_, rollbackErr := tx.ExecContext(ctx, `ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt`)
		return errors.Join(err, rollbackErr)
	}
	_, err = tx.ExecContext(ctx, `RELEASE SAVEPOINT attempt`)
	return err
}

func sqlState(err error) string {
	if pgErr, ok := errors.AsType[*pq.Error](err); ok {
		return string(pgErr.Code)
	}
	return ""
}

// asBlocked turns err into a *BlockedError if a person must act first, and returns other errors
// unchanged.
func asBlocked(view string, err error) error {
	pgErr, ok := errors.AsType[*pq.Error](err)
	// dependent objects, insufficient privilege
	if !ok || pgErr.Code != "2BP01" && pgErr.Code != "42501" {
		return err
	}
	why := pgErr.Message
	if pgErr.Detail != "" {
		why += ": " + pgErr.Detail
	}
	return &BlockedError{view, why}
}

// checkSwitch returns an error if the view could not be switched to a generation. It changes
// nothing, and does not wait for a reader of the view.
func checkSwitch(ctx context.Context, tx *sqlx.Tx, name string, number int) error {
	_, err := tx.ExecContext(ctx, `SAVEPOINT trial; SET LOCAL lock_timeout = '`+switchLockTimeout+`'`)
	if err != nil {
		return err
	}
	switchErr := switchView(ctx, tx, name, number)
	if _, err := tx.ExecContext(ctx,
		`ROLLBACK TO SAVEPOINT trial; RELEASE SAVEPOINT trial`); err != nil {
		return err
	}
	if sqlState(switchErr) == "55P03" { // a reader holds the lock; the real switch tries again
		return nil
	}
	return switchErr
}
