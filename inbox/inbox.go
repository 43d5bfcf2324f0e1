// Package inbox holds every SQL statement on what a service has received: which events took effect
// already, which wait for another attempt, which are parked for a person, and which deadlines are set.
//
// It promises that Accept says "fresh" for an event of an owner exactly once per consumer, also
// when two transactions ask at the same time. All of it happens in the caller's transaction, beside
// the effect. It decides nothing: package consumer does.
package inbox

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are those of the line "inbox".
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// Inbox is what one consumer has received. It is safe for concurrent use.
type Inbox struct {
	db         *sqlx.DB
	statements *postgres.Statements
	consumer   string
}

// New returns the inbox of a consumer. Two consumers may share a database: each has its own view of
// what it has handled.
func New(db *sqlx.DB, consumer string) *Inbox {
	return &Inbox{db: db, statements: postgres.NewStatements(db), consumer: consumer}
}

// Receipt names an event that has come in. ID is a UUID.
type Receipt struct {
	Owner string
	ID    string
	Type  string
}

// Accept records receipts in tx and tells which of them are fresh. It comes first in a transaction:
// the ids are taken in sorted order, so that two transactions never wait for each other in a circle.
// A receipt that another open transaction has recorded is waited for.
func (i *Inbox) Accept(ctx context.Context, tx *sqlx.Tx, receipts ...Receipt) (fresh map[Receipt]bool, err error) {
	sorted := slices.Clone(receipts)
	slices.SortFunc(sorted, func(a, b Receipt) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Type, b.Type))
	})
	owners, ids, types := make(pq.StringArray, len(sorted)), make(pq.StringArray, len(sorted)), make(pq.StringArray, len(sorted))
	for n, r := range sorted {
		owners[n], ids[n], types[n] = r.Owner, r.ID, r.Type
	}
	insert, err := i.statements.In(ctx, tx, `
		INSERT INTO inbox (consumer, owner, event_id, type)
		SELECT $1, r.* FROM unnest($2::text[], $3::uuid[], $4::text[]) AS r
		ON CONFLICT DO NOTHING RETURNING owner, event_id::text, type`)
	if err != nil {
		return nil, fmt.Errorf("accept events: %w", err)
	}
	rows, err := insert.QueryxContext(ctx, i.consumer, owners, ids, types)
	if err != nil {
		return nil, fmt.Errorf("accept events: %w", err)
	}
	defer func() { _ = rows.Close() }()
	fresh = make(map[Receipt]bool, len(receipts))
	for rows.Next() {
		var r Receipt
		if err := rows.Scan(&r.Owner, &r.ID, &r.Type); err != nil {
			return nil, fmt.Errorf("accept events: %w", err)
		}
		fresh[r] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("accept events: %w", err)
	}
	return fresh, nil
}

// Handled is an event that has taken effect.
type Handled struct {
	Owner string    `db:"owner" json:"owner"`
	ID    string    `db:"event_id" json:"id"`
	Type  string    `db:"type" json:"type"`
	At    time.Time `db:"handled_at" json:"at"`
}

// Handled tells which of the given event ids have come in, and when.
func (i *Inbox) Handled(ctx context.Context, ids ...string) ([]Handled, error) {
	handled := []Handled{}
	// The owner is not known to the caller, but there are few: the index is searched for each.
	err := i.db.SelectContext(ctx, &handled, `
		WITH RECURSIVE owners AS (
			(SELECT owner FROM inbox WHERE consumer = $1 ORDER BY owner LIMIT 1)
			UNION ALL
			SELECT (SELECT owner FROM inbox WHERE consumer = $1 AND owner > o.owner ORDER BY owner LIMIT 1) FROM owners AS o WHERE o.owner IS NOT NULL
		)
		SELECT i.owner, i.event_id::text AS event_id, i.type, i.handled_at FROM owners AS o
		JOIN inbox AS i ON i.consumer = $1 AND i.owner = o.owner AND i.event_id = ANY($2::uuid[])
		ORDER BY i.handled_at`, i.consumer, pq.StringArray(ids))
	if err != nil {
		return nil, fmt.Errorf("look up handled events: %w", err)
	}
	return handled, nil
}
