package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// BlockedError says that a rebuilt projection cannot take the place of the one that readers see,
// because of what others have made of it.
type BlockedError struct{ View, Why string }

func (e *BlockedError) Error() string {
	return fmt.Sprintf(
		"view %s cannot be moved to its rebuilt table: %s; drop what depends on it, or give "+
			"the view to the service's role, and make it again when the projection is rebuilt", e.View,
		e.Why)
}

// show lets readers see a generation. The view is replaced in its place, which keeps its owner, its
// grants and what depends on it. Where the columns do not permit that, it is made again, with the
// same owner and grants; then nothing may depend on it.
func show(ctx context.Context, tx *sqlx.Tx, name string, number int) error {
	table := tableOf(name, number)
	var old []string
	// All columns are meant: a projection's table is made of its definition, and of nothing else.
	if err := tx.SelectContext(ctx, &old, keepSQL, name, table); err != nil {
		return fmt.Errorf("read the grants of %s: %w", name, err)
	}
	view := `VIEW ` + name + ` AS SELECT * FROM ` + table
	err := try(ctx, tx, `CREATE OR REPLACE `+view)
	if code(err) == "42P16" { // the columns differ otherwise than at the end
		err = try(ctx, tx, `DROP VIEW `+name+`; CREATE `+view)
	}
	for _, statement := range old {
		if err == nil {
			err = try(ctx, tx, statement)
		}
	}
	return blocked(name, err)
}

// keepSQL makes the statements that give a new view what the old one has: owner, grants on it and
// on its columns, options and comment; and its owner the right to read the table.
const keepSQL = `
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

// try runs statements; when they fail the transaction goes on without them.
func try(ctx context.Context, tx *sqlx.Tx, statements string) error {
	if _, err := tx.ExecContext(ctx, `SAVEPOINT attempt`); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, statements)
	if err != nil {
		_, back := tx.ExecContext(ctx, `ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt`)
		return errors.Join(err, back)
	}
	_, err = tx.ExecContext(ctx, `RELEASE SAVEPOINT attempt`)
	return err
}

func code(err error) string {
	if answer, ok := errors.AsType[*pq.Error](err); ok {
		return string(answer.Code)
	}
	return ""
}

// blocked is a *BlockedError where others have to act first.
func blocked(view string, err error) error {
	answer, ok := errors.AsType[*pq.Error](err)
	// dependent objects, insufficient privilege
	if !ok || answer.Code != "2BP01" && answer.Code != "42501" {
		return err
	}
	why := answer.Message
	if answer.Detail != "" {
		why += ": " + answer.Detail
	}
	return &BlockedError{view, why}
}

// tryShow tells whether a generation could be shown, and changes nothing. A view that is being read
// just now is not waited for.
func tryShow(ctx context.Context, tx *sqlx.Tx, name string, number int) error {
	_, err := tx.ExecContext(ctx, `SAVEPOINT trial; SET LOCAL lock_timeout = '`+showWait+`'`)
	if err != nil {
		return err
	}
	shown := show(ctx, tx, name, number)
	if _, err := tx.ExecContext(ctx,
		`ROLLBACK TO SAVEPOINT trial; RELEASE SAVEPOINT trial`); err != nil {
		return err
	}
	if code(shown) == "55P03" {
		return nil
	}
	return shown
}
