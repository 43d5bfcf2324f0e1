package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Verify recomputes the hashes of one stream and returns the number of its events. If an event is
// missing or was changed, the error is a *MismatchError. Verify cannot detect that somebody has
// rewritten a whole stream with its hashes and its head. To detect that, keep a copy of the heads
// elsewhere and compare.
func Verify(ctx context.Context, q sqlx.QueryerContext, stream string) (count int64, err error) {
	var last Head
	for minVersion := int64(0); ; { // the loop repeats if the stream grows meanwhile
		if last, err = follow(ctx, q, stream, last); err != nil {
			return 0, err
		}
		if last.Version < minVersion {
			return 0, &MismatchError{stream, last.Version + 1,
				fmt.Sprintf("it is missing: the head of the stream was at version %d", minVersion)}
		}
		heads, err := Heads(ctx, q, stream)
		if unreadable, ok := errors.AsType[*StoredError](err); ok {
			return 0, &MismatchError{stream, max(1, last.Version),
				"the head of the stream cannot be read: " + unreadable.Cause.Error()}
		}
		if err != nil {
			return 0, err
		}
		head := heads[stream]
		if head == last {
			return last.Version, nil
		}
		if head.Version <= last.Version {
			return 0, &MismatchError{stream, max(1, head.Version),
				"the head of the stream is at an earlier version, or has another hash"}
		}
		minVersion = head.Version // a later read must return the events up to this head
	}
}

// follow recomputes the hashes of the events that come after a head, and returns the last.
func follow(ctx context.Context, q sqlx.QueryerContext, stream string, last Head) (Head, error) {
	for { // in batches, since a long stream may not fit into memory
		facts, err := readRaw(ctx, q, stream, last.Version, maxRead)
		if err != nil {
			return last, err
		}
		for _, f := range facts {
			if err := f.checkAfter(last); err != nil {
				return last, err
			}
			last = Head{f.Version, f.Hash}
		}
		if len(facts) < maxRead {
			return last, nil
		}
	}
}
