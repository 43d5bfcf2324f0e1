package eventstore

import (
	"crypto/sha256"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/google/uuid"
)

// Hash is the SHA-256 of a stream up to one of its events. It covers the hash of the event before,
// and the hashes of the parts of the event, so that no byte can move from one part to another. The
// hash before the first event is all zeros.
type Hash [sha256.Size]byte

// nextHash returns the hash of the event after the one with the hash previous. PostgreSQL can
// compute the same:
//
//	sha256(previous || sha256(stream) || int8send(version) || uuid_send(id) ||
//		sha256(type) || sha256(headers) || sha256(payload))
func nextHash(previous Hash, stream string, version int64, id, kind string, headers,
	payload []byte) Hash {
	h := sha256.New()
	h.Write(previous[:])
	part(h, []byte(stream))
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(version))
	h.Write(number[:])
	u := uuid.MustParse(id) // Event.Record and the type of the column guarantee a UUID
	h.Write(u[:])
	part(h, []byte(kind))
	part(h, headers)
	part(h, payload)
	return Hash(h.Sum(nil))
}

func part(h hash.Hash, data []byte) {
	sum := sha256.Sum256(data)
	h.Write(sum[:])
}

// Scan decodes a bytea; it implements sql.Scanner.
func (h *Hash) Scan(src any) error {
	data, ok := src.([]byte)
	if !ok || len(data) != len(h) {
		return fmt.Errorf("scan hash: want %d bytes, got %T", len(h), src)
	}
	*h = Hash(data)
	return nil
}

// Value returns a bytea; it implements driver.Valuer.
func (h Hash) Value() (driver.Value, error) { return h[:], nil }
