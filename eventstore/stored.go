package eventstore

import (
	"fmt"
	"time"
)

// storedWait is the pause before an event is handled again after its handler could not read a
// stored one. By then a replica of a newer release may handle it.
const storedWait = 10 * time.Second

// StoredError means that this release cannot read a stored event: only a newer release knows its
// type or its version, or its row cannot be decoded. That is not the fault of the event being
// handled, so package consumer retries that one without counting an attempt. StoredError does not
// unwrap to its cause, since package consumer would take it for a fault of the event being handled
// and park it.
type StoredError struct {
	Stream  string
	Version int64 // of the event, or 0 for the head of the stream
	Cause   error
}

func (e *StoredError) Error() string {
	what := fmt.Sprintf("event %d", e.Version)
	if e.Version == 0 {
		what = "the head"
	}
	return fmt.Sprintf("%s of stream %s cannot be read by this release: %v; "+
		"run the release that wrote it, or verify the stream", what, e.Stream, e.Cause)
}

// RetryAfter returns the pause before the next attempt. An error with this method makes package
// consumer retry without counting an attempt.
func (e *StoredError) RetryAfter() time.Duration { return storedWait }

// MismatchError names the first event of a stream that is missing or was changed. Every event whose
// handler needs the stream waits until a person has repaired it.
type MismatchError struct {
	Stream  string `json:"stream"`
	Version int64  `json:"version"`
	Why     string `json:"why"`
}

func (m *MismatchError) Error() string {
	return fmt.Sprintf("event %d of stream %s does not match: %s", m.Version, m.Stream, m.Why)
}

// RetryAfter does the same as that of StoredError: the stream is damaged, which is not the fault of
// the event being handled.
func (m *MismatchError) RetryAfter() time.Duration { return storedWait }

const (
	whyMissing = "it is missing"
	whyChanged = "its hash is not the hash of its stored content and of the events before it"
)

// checkAfter returns a *MismatchError unless the fact is the next one after a head and unchanged.
func (f Fact) checkAfter(head Head) error {
	if f.Version != head.Version+1 {
		return &MismatchError{f.Stream, head.Version + 1, whyMissing}
	}
	if nextHash(head.Hash, f.Stream, f.Version, f.Record.ID, f.Record.Type, f.headers,
		f.Record.Data) != f.Hash {
		return &MismatchError{f.Stream, f.Version, whyChanged}
	}
	return nil
}

// decodeError returns a *StoredError if the row of a fact could not be decoded.
func (f Fact) decodeError() error {
	if f.damageErr == nil {
		return nil
	}
	return &StoredError{f.Stream, f.Version, f.damageErr}
}
