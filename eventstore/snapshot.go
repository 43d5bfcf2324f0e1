package eventstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// SnapshotEvery is the number of events between two snapshots of a stream.
const SnapshotEvery = 16

// snapshot is the folded state after an event. It is used only if its checksum is right, if its
// fold version is the current one, and if the stream still has the same event at its version.
type snapshot struct {
	stream  string
	version int64
	fold    int
	state   []byte
	hash    Hash // of the event at version
	sum     Hash // checksum of all other fields
}

// checksum returns the hash of all fields but sum. It hashes the hash of each field, so that two
// different snapshots never have the same input.
func (s snapshot) checksum() Hash {
	h := sha256.New()
	part(h, []byte(s.stream))
	part(h, binary.BigEndian.AppendUint64(nil, uint64(s.version)))
	part(h, binary.BigEndian.AppendUint64(nil, uint64(s.fold)))
	part(h, s.state)
	h.Write(s.hash[:])
	return Hash(h.Sum(nil))
}

// readSnapshots returns the undamaged snapshots of a fold version. The others are passed over
// without an error: a snapshot only saves time, and the state is folded from the events instead.
func readSnapshots(ctx context.Context, query queryFunc, fold int,
	streams []string) (map[string]snapshot,
	error) {
	rows, err := query(ctx, `SELECT stream, version, fold, state, hash, sum FROM eventstore_snapshots
		WHERE stream = ANY($1)`, pq.StringArray(streams))
	if err != nil {
		return nil, fmt.Errorf("read snapshots: %w", err)
	}
	defer func() { _ = rows.Close() }()
	found := map[string]snapshot{}
	for rows.Next() {
		var s snapshot
		var hash, sum []byte
		if err := rows.Scan(&s.stream, &s.version, &s.fold, &s.state, &hash, &sum); err != nil {
			return nil, fmt.Errorf("read snapshots: %w", err)
		}
		damaged := errors.Join(s.hash.Scan(hash), s.sum.Scan(sum))
		if damaged == nil && s.fold == fold && s.sum == s.checksum() {
			found[s.stream] = s
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read snapshots: %w", err)
	}
	return found, nil
}

// writeSnapshots replaces the snapshots of streams whose heads are locked.
func writeSnapshots(ctx context.Context, tx *sqlx.Tx, taken []snapshot) error {
	if len(taken) == 0 {
		return nil
	}
	var stream, state pq.StringArray
	var version, fold pq.Int64Array
	var hash, sum pq.ByteaArray
	for _, s := range taken {
		check := s.checksum()
		stream, version, fold = append(stream, s.stream), append(version, s.version),
			append(fold, int64(s.fold))
		state, hash, sum = append(state, string(s.state)), append(hash, s.hash[:]), append(sum, check[:])
	}
	write, err := pg.Prepared(ctx, tx, `
		INSERT INTO eventstore_snapshots (stream, version, fold, state, hash, sum)
		SELECT s, v, f, t, h, c FROM unnest($1::text[], $2::bigint[], $3::int[], $4::text[], $5::bytea[],
			$6::bytea[]) AS n (s, v, f, t, h, c)
		ON CONFLICT (stream) DO UPDATE SET version = EXCLUDED.version, fold = EXCLUDED.fold,
			state = EXCLUDED.state,
			hash = EXCLUDED.hash, sum = EXCLUDED.sum`)
	if err == nil {
		_, err = write.Exec(ctx, stream, version, fold, state, hash, sum)
	}
	if err != nil {
		return fmt.Errorf("write snapshots: %w", err)
	}
	return nil
}
