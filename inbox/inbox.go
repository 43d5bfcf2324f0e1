// Package inbox holds every SQL statement on what a service has received: which events took effect
// already, which wait for another attempt, which are parked for a person, and which deadlines are
// set.
//
// It promises that Accept says "fresh" for an event of an owner exactly once per consumer, also
// when two transactions ask at the same time. All of it happens in the caller's transaction, beside
// the effect. It decides nothing: package consumer does.
package inbox

import (
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
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

// Receipt names an event that has come in. ID is a UUID, Content is ContentOf its data.
type Receipt struct {
	Owner   string
	ID      string
	Type    string
	Content int64
}

// ContentOf returns the fingerprint of an event's data: the first eight bytes of its SHA-256.
func ContentOf(data []byte) int64 {
	sum := sha256.Sum256(data)
	return int64(binary.BigEndian.Uint64(sum[:])) //nolint:gosec // all 64 bits are kept
}

// Accept records receipts in tx and tells which of them are fresh. It comes first in a transaction:
// the ids are taken in sorted order, so that two transactions never wait for each other in a
// circle. A receipt that another open transaction has recorded is waited for.
func (i *Inbox) Accept(ctx context.Context, tx *sqlx.Tx,
	receipts ...Receipt) (fresh map[Receipt]bool, err error) {
	sorted := slices.Clone(receipts)
	slices.SortFunc(sorted, func(a, b Receipt) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Type, b.Type))
	})
	fresh = make(map[Receipt]bool, len(receipts))
	err = i.each(ctx, tx, sorted, func(r Receipt) { fresh[r] = true }, `
		INSERT INTO inbox (consumer, owner, event_id, type, content)
		SELECT $1, r.* FROM unnest($2::text[], $3::uuid[], $4::text[], $5::bigint[]) AS r
		ON CONFLICT DO NOTHING RETURNING owner, event_id::text, type, content`)
	return fresh, wrap("accept events", err)
}

// Clashes returns those receipts under whose id something else came before, of another type or with
// other content: their producer has used an id twice, and what it said now has had no effect.
func (i *Inbox) Clashes(ctx context.Context, tx *sqlx.Tx,
	receipts ...Receipt) (clashes map[Receipt]bool, err error) {
	clashes = map[Receipt]bool{}
	err = i.each(ctx, tx, receipts, func(r Receipt) { clashes[r] = true }, `
		SELECT r.owner, r.id::text, r.type, r.content
		FROM unnest($2::text[], $3::uuid[], $4::text[], $5::bigint[]) AS r (owner, id, type, content)
		JOIN inbox AS i ON i.consumer = $1 AND i.owner = r.owner AND i.event_id = r.id
		WHERE i.type <> r.type OR i.content <> r.content`)
	return clashes, wrap("compare events", err)
}

// each runs a statement on receipts, which stays prepared, and calls f with each that it returns.
func (i *Inbox) each(ctx context.Context, tx *sqlx.Tx, receipts []Receipt, f func(Receipt),
	query string) error {
	owners, ids, types := make(pq.StringArray, len(receipts)), make(pq.StringArray, len(receipts)),
		make(pq.StringArray, len(receipts))
	contents := make(pq.Int64Array, len(receipts))
	for n, r := range receipts {
		owners[n], ids[n], types[n], contents[n] = r.Owner, r.ID, r.Type, r.Content
	}
	statement, err := i.statements.In(ctx, tx, query)
	if err != nil {
		return err
	}
	rows, err := statement.QueryxContext(ctx, i.consumer, owners, ids, types, contents)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var r Receipt
		if err := rows.Scan(&r.Owner, &r.ID, &r.Type, &r.Content); err != nil {
			return err
		}
		f(r)
	}
	return rows.Err()
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
			SELECT (SELECT owner FROM inbox WHERE consumer = $1 AND owner > o.owner ORDER BY owner LIMIT 1)
				FROM owners AS o WHERE o.owner IS NOT NULL
		)
		SELECT i.owner, i.event_id::text AS event_id, i.type, i.handled_at FROM owners AS o
		JOIN inbox AS i ON i.consumer = $1 AND i.owner = o.owner AND i.event_id = ANY($2::uuid[])
		ORDER BY i.handled_at`, i.consumer, pq.StringArray(ids))
	if err != nil {
		return nil, fmt.Errorf("look up handled events: %w", err)
	}
	return handled, nil
}
