package eventstore_test

import (
	"errors"
	"testing"

	"github.com/quadrille-go/quadrille/eventstore"
)

// After every change in the tables, Verify names the first event that does not match.
func TestVerifyNamesTheFirstMismatch(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct {
		sql   string
		first int64
	}{
		"nothing": {`SELECT 1`, 0},
		"a payload": {`UPDATE eventstore SET payload = '{"counter":"a","n":400}'
			WHERE version = 4`, 4},
		"a space in a payload": {`UPDATE eventstore SET payload = (payload::text || ' ')::json
			WHERE version = 4`, 4},
		"a header":             {`UPDATE eventstore SET headers = '{}' WHERE version = 1`, 1},
		"a type":               {`UPDATE eventstore SET type = 'counter.reset' WHERE version = 3`, 3},
		"an id":                {`UPDATE eventstore SET id = gen_random_uuid() WHERE version = 6`, 6},
		"a hash":               {`UPDATE eventstore SET hash = sha256('x') WHERE version = 5`, 5},
		"headers of no object": {`UPDATE eventstore SET headers = '[]' WHERE version = 2`, 2},
		"half a hash":          {`UPDATE eventstore SET hash = 'x' WHERE version = 5`, 5},
		"half of the head":     {`UPDATE eventstore_streams SET hash = 'x'`, 6},
		"two events swapped": {`UPDATE eventstore SET version = CASE version WHEN 3 THEN 104 ELSE 3 END
			WHERE version IN (3, 4); UPDATE eventstore SET version = 4 WHERE version = 104`, 3},
		"an event removed": {`DELETE FROM eventstore WHERE version = 2`, 2},
		"removed, renumbered": {`DELETE FROM eventstore WHERE version = 2; UPDATE eventstore
			SET version = version + 100 WHERE version > 2; UPDATE eventstore SET version = version - 101
				WHERE version > 100`, 2},
		"the last one removed": {`DELETE FROM eventstore WHERE version = 6`, 6},
		"all removed":          {`DELETE FROM eventstore`, 1},
		"the head moved back": {`UPDATE eventstore_streams SET version = 5, hash = (SELECT hash
			FROM eventstore WHERE version = 5)`, 5},
		"the head removed": {`DELETE FROM eventstore_streams`, 1},
		"one added": {`INSERT INTO eventstore (stream, version, id, type, payload, headers, hash)
			SELECT stream, 7, id, type, payload, headers, sha256('x') FROM eventstore WHERE version = 6`, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			s.grow("a", 6)
			s.exec(change.sql)
			n, err := eventstore.Verify(t.Context(), s, "counter/a")
			mismatch, found := errors.AsType[*eventstore.MismatchError](err)
			switch {
			case change.first == 0 && (err != nil || n != 6):
				t.Errorf("%d events, %v", n, err)
			case change.first > 0 && (!found || mismatch.Version != change.first ||
				mismatch.Stream != "counter/a"):
				t.Errorf("%v, want event %d", err, change.first)
			}
		})
	}
}

// PostgreSQL computes the same hash, so that a stream can be checked, and begun, with SQL alone.
func TestDatabaseComputesTheSameHash(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.grow("a", 3)
	if n := s.int(`SELECT count(*) FROM (SELECT hash = sha256(lag(hash, 1, decode(repeat('00', 32),
		'hex')) OVER (ORDER BY version)
		|| sha256(convert_to(stream, 'UTF8')) || int8send(version) || uuid_send(id)
			|| sha256(convert_to(type, 'UTF8'))
		|| sha256(convert_to(headers::text, 'UTF8')) || sha256(convert_to(payload::text, 'UTF8'))) AS same
			FROM eventstore) v WHERE same`); n != 3 {
		t.Errorf("%d of 3 hashes are the same", n)
	}
}

// A stream that grows during Verify has no mismatch.
func TestVerifyWhileTheStreamGrows(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	head := s.grow("a", 1)
	done := make(chan error)
	go func() {
		var err error
		for i := 0; i < 300 && err == nil; i++ {
			head, err = s.append(streamOf("a"), head, fact("a", i))
		}
		done <- err
	}()
	for rounds := 0; ; rounds++ {
		if _, err := eventstore.Verify(t.Context(), s, "counter/a"); err != nil {
			t.Fatalf("round %d: %v", rounds, err)
		}
		select {
		case err := <-done:
			must(t, err)
			return
		default:
		}
	}
}
