package inbox

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// Repair is what an operator did to a parked row, on record.
type Repair struct {
	ID        int64     `db:"id"`
	Owner     string    `db:"owner"`
	Key       string    `db:"key"`
	Type      string    `db:"type"`
	Action    string    `db:"action"`   // redrive, discard or edit
	Operator  string    `db:"operator"` // who did it
	Reason    string    `db:"reason"`   // why, in the operator's words
	ParkedFor string    `db:"parked_for"`
	At        time.Time `db:"at"`
}

// Repaired is what became of the rows that an operator named, by their keys.
type Repaired struct {
	Done     []string
	Rows     []Pending // those of Done, with their envelopes
	Evidence []string  // they can only be discarded
	Absent   []string  // nothing is parked under these keys: it was repaired before
}

// namedSQL locks the parked rows that an operator named. All operators lock in one order, so that
// two of them cannot wait for each other.
const namedSQL = `
WITH named AS (SELECT owner, key FROM pending WHERE consumer = $1 AND key = ANY($2) AND due IS NULL
	ORDER BY owner, key FOR UPDATE),`

// redriveSQL makes parked rows due, with all of their attempts. Evidence stays parked: it is not an
// event that a handler could handle.
const redriveSQL = namedSQL + `
done AS (
	UPDATE pending AS p SET due = now(), attempts = 0, updated_at = now() FROM named
	WHERE p.consumer = $1 AND p.owner = named.owner AND p.key = named.key AND p.due IS NULL
		AND p.kind <> 'evidence'
	RETURNING p.owner, p.key, p.kind, p.type, p.reason, p.attributes),
noted AS (
	INSERT INTO repairs (consumer, owner, key, type, action, operator, reason, parked_for)
	SELECT $1, owner, key, type, 'redrive', $3, $4, reason FROM done ORDER BY key)
` + doneSQL

// discardSQL moves parked rows to the record. The inbox still knows the events, so that they are
// not handled when they are delivered again.
const discardSQL = namedSQL + `
done AS (
	DELETE FROM pending AS p USING named
	WHERE p.consumer = $1 AND p.owner = named.owner AND p.key = named.key AND p.due IS NULL
	RETURNING p.owner, p.key, p.kind, p.type, p.reason, p.attributes, to_json(p) AS whole),
noted AS (
	INSERT INTO repairs (consumer, owner, key, type, action, operator, reason, parked_for, discarded)
	SELECT $1, owner, key, type, 'discard', $3, $4, reason, whole FROM done ORDER BY key)
` + doneSQL

const doneSQL = `SELECT owner, key, kind, type, reason, attributes FROM done ORDER BY key`

// Redrive makes the parked rows with these keys due now. Whoever comes second, also after a crash
// in the middle, finds them absent.
func (i *Inbox) Redrive(ctx context.Context, operator, reason string, keys ...string) (Repaired,
	error) {
	r, err := i.repair(ctx, redriveSQL, operator, reason, keys)
	return r, wrap("redrive", err)
}

// Discard moves the parked rows with these keys, also evidence, to the record of repairs.
func (i *Inbox) Discard(ctx context.Context, operator, reason string, keys ...string) (Repaired,
	error) {
	r, err := i.repair(ctx, discardSQL, operator, reason, keys)
	return r, wrap("discard", err)
}

func (i *Inbox) repair(ctx context.Context, query, operator, reason string,
	keys []string) (r Repaired, err error) {
	r = Repaired{Done: []string{}, Evidence: []string{}, Absent: []string{}}
	err = pg.InTx(ctx, i.db, func(tx *sqlx.Tx) error {
		if err := tx.SelectContext(ctx, &r.Rows, query, i.consumer, pq.StringArray(keys),
			storable(operator), storable(reason)); err != nil {
			return err
		}
		for _, p := range r.Rows {
			r.Done = append(r.Done, p.Key)
		}
		return tx.SelectContext(ctx, &r.Evidence, `SELECT DISTINCT key FROM pending
			WHERE consumer = $1 AND key = ANY($2) AND due IS NULL AND kind = 'evidence' ORDER BY key`,
			i.consumer, pq.StringArray(keys))
	})
	known := map[string]bool{}
	for _, list := range [][]string{r.Done, r.Evidence} {
		for _, key := range list {
			known[key] = true
		}
	}
	for _, key := range keys {
		if !known[key] {
			r.Absent, known[key] = append(r.Absent, key), true
		}
	}
	return r, err
}

// Repairs returns a page of what operators did, the newest first, and the id after which the next
// page begins, 0 when there is none. The first page is after 0.
func (i *Inbox) Repairs(ctx context.Context, after int64, limit int) (list []Repair, next int64,
	err error) {
	list = []Repair{}
	err = i.db.SelectContext(ctx, &list, `SELECT id, owner, key, type, action, operator, reason,
		parked_for, at FROM repairs WHERE consumer = $1 AND ($2 = 0 OR id < $2)
		ORDER BY id DESC LIMIT $3`, i.consumer, after, limit+1)
	if len(list) > limit {
		list = list[:limit]
		next = list[limit-1].ID
	}
	return list, next, wrap("list repairs", err)
}
