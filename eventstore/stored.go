package eventstore

import (
	"fmt"
	"time"
)

// storedWait is after how long it is worth trying again what has met something stored that it
// cannot read: another replica, of a newer release, may take it then.
const storedWait = 10 * time.Second

// StoredError says that something stored cannot be read by this release: an event of a type or of a
// version that only a newer release knows, or a row that does not decode. What came is not to
// blame: package consumer lets it wait without an attempt. For that reason the cause is not
// unwrapped: as an error about what came it would park it.
type StoredError struct {
	Stream  string
	Version int64 // of the event; 0 is the head of the stream
	Cause   error
}

func (e *StoredError) Error() string {
	what := fmt.Sprintf("event %d", e.Version)
	if e.Version == 0 {
		what = "the head"
	}
	return fmt.Sprintf("%s of stream %s is stored, and this release cannot read it: %v; "+
		"let the release that wrote it run, or verify the stream", what, e.Stream, e.Cause)
}

// RetryAfter tells after which pause it is worth another try; package consumer knows by this method
// that it costs no attempt.
func (e *StoredError) RetryAfter() time.Duration { return storedWait }

// MismatchError is the first event of a stream that does not fit what is stored around it. Whatever
// needs the stream waits until a person has repaired it.
type MismatchError struct {
	Stream  string `json:"stream"`
	Version int64  `json:"version"`
	Why     string `json:"why"`
}

func (m *MismatchError) Error() string {
	return fmt.Sprintf("event %d of stream %s does not fit: %s", m.Version, m.Stream, m.Why)
}

// RetryAfter is that of StoredError: the stream was damaged, and what came is not to blame.
func (m *MismatchError) RetryAfter() time.Duration { return storedWait }

const (
	isMissing = "it is missing"
	isChanged = "its hash is not that of what is stored, after the events before it"
)

// follows tells whether a fact is the one after a head: a *Misfit is the error when it is not, or
// when it was changed.
func (f Fact) follows(head Head) error {
	if f.Version != head.Version+1 {
		return &MismatchError{f.Stream, head.Version + 1, isMissing}
	}
	if next(head.Hash, f.Stream, f.Version, f.Record.ID, f.Record.Type, f.headers,
		f.Record.Data) != f.Hash {
		return &MismatchError{f.Stream, f.Version, isChanged}
	}
	return nil
}

// whole is a *StoredError when the row of a fact did not decode.
func (f Fact) whole() error {
	if f.damage == nil {
		return nil
	}
	return &StoredError{f.Stream, f.Version, f.damage}
}
