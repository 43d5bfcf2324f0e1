// Package backlog reads how much waits in the database of a service: in its outbox, for a retry or
// a deadline, or for a person.
//
// It is for gauges that are read every few seconds, however much waits. Each statement goes through
// an index and stops at Most rows, so that its cost has a bound: a number that has reached Most
// means "at least that many". It takes no locks.
package backlog

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// The bounds of what is read.
const (
	Most         = 10_000      // rows that are counted, of each type of pending rows
	maxTypes     = 100         // of pending rows
	OverdueAfter = time.Minute // how long a row must be due to count as overdue
)

// Backlog is what waits. The ages are by the clock of the database.
type Backlog struct {
	Unpublished    int64         // events in the outbox that the relay has not reached
	UnpublishedAge time.Duration // since the transaction of the oldest one began
	Held           map[string]int64
	Parked         map[string]int64
	ParkedAge      time.Duration // since the oldest one was received
	// What waits for a time, by its kind: all, those whose time has come, and those of them for whom
	// it came before OverdueAfter.
	Pending, Due, Overdue map[string]int64
	DueAge                time.Duration // how late the latest one is
}

// Read reads the backlog of a consumer and of the outbox of its database.
func Read(ctx context.Context, db *sqlx.DB, consumer string) (b Backlog, err error) {
	ctx = pg.ByIndex(ctx)
	conn, err := db.Connx(ctx)
	if err != nil {
		return b, fmt.Errorf("read the backlog: %w", err)
	}
	defer func() { _ = conn.Close() }()
	for _, read := range []func() error{
		func() (err error) { b.Unpublished, b.UnpublishedAge, err = unpublished(ctx, conn); return err },
		func() (err error) { b.Held, err = held(ctx, conn); return err },
		func() (err error) { b.Parked, b.ParkedAge, err = parked(ctx, conn, consumer); return err },
		func() error { return b.pending(ctx, conn, consumer) },
	} {
		if err := read(); err != nil {
			return Backlog{}, fmt.Errorf("read the backlog: %w", err)
		}
	}
	return b, nil
}

// unpublishedSQL reads the first rows that the cursor has not passed. Between two windows they are
// the rows that snapshot a does not see, which begin at one place of the index on txid. Within a
// window they are the rows above last_seq, which begin at one place of the primary key, and rows
// that committed late with a lower seq: those that snapshot b does not see. Each part has the order
// of its index, without which the planner may walk another one through the whole history.
const unpublishedSQL = `
WITH c AS (SELECT a, b, CASE WHEN a::text = b::text THEN 9223372036854775807
	ELSE last_seq END AS last FROM outbox_cursor)
SELECT count(*) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
	AS age FROM (
	(SELECT created_at FROM outbox WHERE seq > (SELECT last FROM c)
		AND NOT pg_visible_in_snapshot(txid, (SELECT a FROM c)) ORDER BY seq LIMIT $1)
	UNION ALL
	SELECT created_at FROM (SELECT created_at, seq FROM outbox
		WHERE txid >= pg_snapshot_xmax((SELECT b FROM c)) ORDER BY txid, seq LIMIT $1) AS later
		WHERE seq <= (SELECT last FROM c)
	UNION ALL
	SELECT created_at FROM (SELECT pg_snapshot_xip(b) AS id FROM c) AS running, LATERAL (
		SELECT created_at FROM outbox WHERE txid = running.id AND seq <= (SELECT last FROM c)
		ORDER BY txid, seq LIMIT $1) AS late
	LIMIT $1) AS unpublished`

func unpublished(ctx context.Context, conn *sqlx.Conn) (int64, time.Duration, error) {
	var found struct {
		N   int64   `db:"n"`
		Age float64 `db:"age"`
	}
	err := conn.GetContext(ctx, &found, unpublishedSQL, Most)
	return found.N, seconds(found.Age), err
}

const heldSQL = `
SELECT kind, count(*) AS n FROM (SELECT kind FROM outbox_held ORDER BY seq LIMIT $1) AS held
GROUP BY kind`

func held(ctx context.Context, conn *sqlx.Conn) (map[string]int64, error) {
	var rows []counted
	if err := conn.SelectContext(ctx, &rows, heldSQL, Most); err != nil {
		return nil, err
	}
	return byKind(rows, func(c counted) int64 { return c.N }), nil
}

const parkedSQL = `
SELECT kind, count(*) AS n, extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS age
FROM (SELECT kind, created_at FROM pending WHERE consumer = $1 AND due IS NULL
	ORDER BY created_at, key LIMIT $2) AS parked
GROUP BY kind`

func parked(ctx context.Context, conn *sqlx.Conn, consumer string) (map[string]int64, time.Duration,
	error) {
	var rows []counted
	if err := conn.SelectContext(ctx, &rows, parkedSQL, consumer, Most); err != nil {
		return nil, 0, err
	}
	return byKind(rows, func(c counted) int64 { return c.N }), oldest(rows), nil
}

// pendingSQL looks for each type in the index, and then for its rows in the order of their time:
// many deadlines that are not due must not hide a retry that is.
const pendingSQL = `
WITH RECURSIVE types AS (
	(SELECT type FROM pending WHERE consumer = $1 AND due IS NOT NULL ORDER BY type LIMIT 1)
	UNION ALL
	SELECT (SELECT type FROM pending WHERE consumer = $1 AND due IS NOT NULL AND type > t.type
		ORDER BY type LIMIT 1) FROM types AS t WHERE t.type IS NOT NULL
)
SELECT kind, count(*) AS n, count(*) FILTER (WHERE due <= clock_timestamp()) AS due,
	count(*) FILTER (WHERE due <= clock_timestamp() - $4 * interval '1 second') AS overdue,
	extract(epoch FROM clock_timestamp() - min(due))::float8 AS age
FROM (SELECT type FROM types WHERE type IS NOT NULL LIMIT $3) AS t, LATERAL (
	SELECT kind, due FROM pending WHERE consumer = $1 AND type = t.type AND due IS NOT NULL
	ORDER BY due, key LIMIT $2) AS p
GROUP BY kind`

func (b *Backlog) pending(ctx context.Context, conn *sqlx.Conn, consumer string) error {
	var rows []counted
	if err := conn.SelectContext(ctx, &rows, pendingSQL, consumer, Most, maxTypes,
		OverdueAfter.Seconds()); err != nil {
		return err
	}
	b.Pending = byKind(rows, func(c counted) int64 { return c.N })
	b.Due = byKind(rows, func(c counted) int64 { return c.Due })
	b.Overdue = byKind(rows, func(c counted) int64 { return c.Overdue })
	b.DueAge = oldest(rows)
	return nil
}

// counted is how many rows of a kind wait.
type counted struct {
	Kind    string  `db:"kind"`
	N       int64   `db:"n"`
	Due     int64   `db:"due"`
	Overdue int64   `db:"overdue"`
	Age     float64 `db:"age"` // of the oldest; negative: its time has not come
}

func byKind(rows []counted, number func(counted) int64) map[string]int64 {
	by := map[string]int64{}
	for _, r := range rows {
		by[r.Kind] = number(r)
	}
	return by
}

func oldest(rows []counted) (age time.Duration) {
	for _, r := range rows {
		age = max(age, seconds(r.Age))
	}
	return age
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
