// Package eventstore stores aggregates as streams of events in PostgreSQL. The state of an
// aggregate is the fold of its stream; snapshots are a cache that makes folding faster. Projections
// are tables for reading that are filled from all streams.
//
// A stream is numbered 1, 2, 3 … without a gap, and if two writers expect the same version, one of
// them is refused. Projections miss no event and apply none twice, in every order in which
// transactions commit. Verify detects a change of stored events and names the first event that does
// not match. The package does not publish: events for other services go through the outbox.
package eventstore

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the files of the line "eventstore".
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// Head is the end of a stream: the number of its last event, and the hash of all its events. The
// zero value is the head of a stream without events.
type Head struct {
	Version int64
	Hash    Hash
}

// Conflict means that another transaction has appended to a stream since its writer read it: read
// the stream again and decide again. Its class is pg.Retry.
type Conflict struct {
	Stream           string
	Expected, Actual int64
}

func (c *Conflict) Error() string {
	return fmt.Sprintf("stream %s is at version %d, but version %d was expected", c.Stream, c.Actual,
		c.Expected)
}

func (c *Conflict) Unwrap() error { return pg.ErrRaced }

// Appending is a list of events to append to one stream.
type Appending struct {
	Stream   string
	Expected Head // the head that was read
	Facts    []events.Event
}

// Append appends to one stream in tx and returns its new head. The caller has decided on the state
// at the head expected, as Fold or Heads returned it. If the stream has another head now, nothing
// is appended and the error is a *Conflict. If a fact cannot be encoded, Append fails before it
// uses the database.
func Append(ctx context.Context, tx *sqlx.Tx, stream string, expected Head,
	facts ...events.Event) (Head, error) {
	heads, err := AppendAll(ctx, tx, Appending{stream, expected, facts})
	if err != nil {
		return Head{}, err
	}
	return heads[0], nil
}

// appendSQL moves the heads of the streams that have the expected one, and creates those of the
// streams that are expected to be empty. It inserts events for these streams only.
const appendSQL = `
WITH head AS (
	SELECT stream, expected, previous, version, hash
	FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bytea[]) AS h (stream,
		expected, previous, version, hash)
), moved AS (
	UPDATE eventstore_streams AS s SET version = h.version, hash = h.hash FROM head AS h
	WHERE s.stream = h.stream AND s.version = h.expected AND s.hash = h.previous RETURNING s.stream
), begun AS (
	INSERT INTO eventstore_streams (stream, version, hash) SELECT stream, version, hash FROM head
		WHERE expected = 0
	ON CONFLICT (stream) DO NOTHING RETURNING stream
)
INSERT INTO eventstore (stream, version, id, type, payload, headers, hash)
SELECT stream, version, id, type, payload, headers, hash FROM unnest($6::text[], $7::bigint[],
	$8::uuid[], $9::text[], $10::json[], $11::json[], $12::bytea[]) AS e (stream, version, id, type,
		payload, headers, hash)
WHERE stream IN (SELECT stream FROM moved UNION ALL SELECT stream FROM begun)
ORDER BY e.stream, e.version -- so that seq follows version
RETURNING stream`

// AppendAll appends to many streams in one statement, and returns their new heads. After an error
// the caller must roll tx back, since streams other than that of the *Conflict may have grown.
// A caller that has not locked the streams before, as Streams does, may get a deadlock, which has
// the class pg.Retry.
func AppendAll(ctx context.Context, tx *sqlx.Tx, all ...Appending) ([]Head, error) {
	rows, heads, err := rowsOf(all)
	if err != nil {
		return nil, fmt.Errorf("append events: %w", err)
	}
	var stream pq.StringArray
	var expected, version pq.Int64Array
	var previous, hash pq.ByteaArray
	for i, a := range all {
		stream, expected, version = append(stream, a.Stream), append(expected, a.Expected.Version),
			append(version, heads[i].Version)
		previous, hash = append(previous, a.Expected.Hash[:]), append(hash, heads[i].Hash[:])
	}
	insert, err := pg.Prepared(ctx, tx, appendSQL)
	if err != nil {
		return nil, fmt.Errorf("append events: %w", err)
	}
	inserted, err := insert.Query(ctx, stream, expected, previous, version, hash,
		rows.stream, rows.version, rows.id, rows.kind, rows.payload, rows.headers, rows.hash)
	if err != nil {
		return nil, fmt.Errorf("append events: %w", err)
	}
	defer func() { _ = inserted.Close() }()
	appended := map[string]bool{}
	for inserted.Next() {
		var stream string
		if err := inserted.Scan(&stream); err != nil {
			return nil, fmt.Errorf("append events: %w", err)
		}
		appended[stream] = true
	}
	if err := inserted.Err(); err != nil {
		return nil, fmt.Errorf("append events: %w", err)
	}
	for _, a := range all {
		if !appended[a.Stream] {
			return nil, conflict(ctx, tx, a)
		}
	}
	return heads, nil
}

// columns has rows of the table eventstore, one slice for each column.
type columns struct {
	stream, id, kind, payload, headers pq.StringArray
	version                            pq.Int64Array
	hash                               pq.ByteaArray
}

// rowsOf encodes the events to append and computes the chain of their hashes.
func rowsOf(all []Appending) (rows columns, heads []Head, err error) {
	seen := map[string]bool{}
	for _, a := range all {
		if a.Stream == "" || len(a.Facts) == 0 || seen[a.Stream] {
			return rows, nil, fmt.Errorf("stream %q: it needs a name and at least one event, and may occur "+
				"only once", a.Stream)
		}
		seen[a.Stream] = true
		head := a.Expected
		for _, e := range a.Facts {
			r, err := e.Record()
			if err != nil {
				return rows, nil, err
			}
			headers, err := r.Headers()
			if err != nil {
				return rows, nil, err
			}
			head.Version++
			head.Hash = nextHash(head.Hash, a.Stream, head.Version, r.ID, r.Type, headers, r.Data)
			hash := slices.Clone(head.Hash[:])
			rows.stream, rows.version, rows.id = append(rows.stream, a.Stream),
				append(rows.version, head.Version), append(rows.id, r.ID)
			rows.kind, rows.payload = append(rows.kind, r.Type), append(rows.payload, string(r.Data))
			rows.headers, rows.hash = append(rows.headers, string(headers)), append(rows.hash, hash)
		}
		heads = append(heads, head)
	}
	return rows, heads, nil
}

// conflict returns the *Conflict of a stream that does not have the expected head.
func conflict(ctx context.Context, tx *sqlx.Tx, a Appending) error {
	actual, err := Heads(ctx, tx, a.Stream)
	if err != nil {
		return fmt.Errorf("append events: %w", err)
	}
	return fmt.Errorf("append events: %w", &Conflict{a.Stream, a.Expected.Version,
		actual[a.Stream].Version})
}

// Heads returns the heads of streams. A stream without events is not in the map.
func Heads(ctx context.Context, q sqlx.QueryerContext, streams ...string) (map[string]Head, error) {
	rows, err := q.QueryxContext(ctx, `SELECT stream, version, hash FROM eventstore_streams
		WHERE stream = ANY($1)`, pq.StringArray(streams))
	if err != nil {
		return nil, fmt.Errorf("read heads of streams: %w", err)
	}
	return scanHeads(rows)
}

func scanHeads(rows *sqlx.Rows) (map[string]Head, error) {
	defer func() { _ = rows.Close() }()
	heads := map[string]Head{}
	for rows.Next() {
		var stream string
		var head Head
		if err := rows.Scan(&stream, &head.Version, &head.Hash); err != nil {
			return nil, &StoredError{Stream: stream, Cause: err}
		}
		heads[stream] = head
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read heads of streams: %w", err)
	}
	return heads, nil
}
