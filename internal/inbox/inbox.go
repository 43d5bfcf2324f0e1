// Package inbox has every SQL statement about the events that a service has received: which events
// have taken effect, which wait for another attempt, which are parked for a person, and which
// deadlines are set.
//
// Accept reports an event of an owner as fresh exactly once for each consumer, even if two
// transactions call it at the same time. All statements run in the caller's transaction, together
// with the effect. The package makes no decisions: package engine does.
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

	"github.com/quadrille-go/quadrille/internal/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the files of the line "inbox".
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// Inbox gives access to the events that one consumer has received. It is safe for concurrent use.
type Inbox struct {
	db         *sqlx.DB
	statements *pg.Statements
	consumer   string
}

// New returns the inbox of a consumer. Two consumers may share a database: the rows of each are
// separate.
func New(db *sqlx.DB, consumer string) *Inbox {
	return &Inbox{db: db, statements: pg.NewStatements(db), consumer: consumer}
}

// Receipt identifies a received event. ID is a UUID, Content is ContentOf its data.
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

// Accept inserts receipts in tx and returns which of them are fresh. It must be the first statement
// of a transaction. It inserts in sorted order, so that two transactions cannot deadlock, and waits
// for another open transaction that has inserted the same receipt.
func (i *Inbox) Accept(ctx context.Context, tx *sqlx.Tx,
	receipts ...Receipt) (fresh map[Receipt]bool, err error) {
	sorted := slices.Clone(receipts)
	slices.SortFunc(sorted, func(a, b Receipt) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Type, b.Type))
	})
	fresh = make(map[Receipt]bool, len(receipts))
	err = i.queryReceipts(ctx, tx, sorted, func(r Receipt) { fresh[r] = true }, `
		INSERT INTO inbox (consumer, owner, event_id, type, content)
		SELECT $1, r.* FROM unnest($2::text[], $3::uuid[], $4::text[], $5::bigint[]) AS r
		ON CONFLICT DO NOTHING RETURNING owner, event_id::text, type, content`)
	return fresh, wrap("accept events", err)
}

// Clashes returns the receipts whose id was used before by an event with another type or other
// content. Their producer has used an id twice, and the later event has no effect.
func (i *Inbox) Clashes(ctx context.Context, tx *sqlx.Tx,
	receipts ...Receipt) (clashes map[Receipt]bool, err error) {
	clashes = map[Receipt]bool{}
	err = i.queryReceipts(ctx, tx, receipts, func(r Receipt) { clashes[r] = true }, `
		SELECT r.owner, r.id::text, r.type, r.content
		FROM unnest($2::text[], $3::uuid[], $4::text[], $5::bigint[]) AS r (owner, id, type, content)
		JOIN inbox AS i ON i.consumer = $1 AND i.owner = r.owner AND i.event_id = r.id
		WHERE i.type <> r.type OR i.content <> r.content`)
	return clashes, wrap("compare events", err)
}

// queryReceipts runs a statement on receipts, which stays prepared, and calls f with each receipt
// that the statement returns.
func (i *Inbox) queryReceipts(ctx context.Context, tx *sqlx.Tx, receipts []Receipt, f func(Receipt),
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

// Handled is an event that the consumer has accepted: it has taken effect, or it pends.
type Handled struct {
	Owner string    `db:"owner" json:"owner"`
	ID    string    `db:"event_id" json:"id"`
	Type  string    `db:"type" json:"type"`
	At    time.Time `db:"handled_at" json:"at"` // it was accepted
	// Unhandled is the kind of an event that pends, or parked or discarded; empty: it took effect.
	Unhandled string `db:"unhandled" json:"unhandled"`
	// Content is ContentOf its data; nil: an earlier release accepted it.
	Content *int64 `db:"content" json:"content"`
}

// Handled returns which of the given events were accepted, and when.
func (i *Inbox) Handled(ctx context.Context, ids ...string) ([]Handled, error) {
	handled := []Handled{}
	// The caller does not know the owner. There are few owners, so the query searches the index once
	// for each.
	err := i.db.SelectContext(ctx, &handled, `
		WITH RECURSIVE owners AS (
			(SELECT owner FROM inbox WHERE consumer = $1 ORDER BY owner LIMIT 1)
			UNION ALL
			SELECT (SELECT owner FROM inbox WHERE consumer = $1 AND owner > o.owner ORDER BY owner LIMIT 1)
				FROM owners AS o WHERE o.owner IS NOT NULL
		)
		SELECT i.owner, i.event_id::text AS event_id, i.type, i.handled_at, i.content, CASE
				WHEN p.key IS NOT NULL AND p.due IS NULL THEN 'parked'
				WHEN p.key IS NOT NULL THEN p.kind
				WHEN EXISTS (SELECT FROM repairs AS r WHERE r.consumer = $1 AND r.owner = i.owner
					AND r.key = i.event_id::text AND r.action = 'discard') THEN 'discarded'
				ELSE '' END AS unhandled
		FROM owners AS o
		JOIN inbox AS i ON i.consumer = $1 AND i.owner = o.owner AND i.event_id = ANY($2::uuid[])
		LEFT JOIN pending AS p ON p.consumer = $1 AND p.owner = i.owner AND p.key = i.event_id::text
		ORDER BY i.handled_at`, i.consumer, pq.StringArray(ids))
	if err != nil {
		return nil, fmt.Errorf("look up handled events: %w", err)
	}
	return handled, nil
}
