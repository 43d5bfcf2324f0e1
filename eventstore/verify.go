package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Verify recomputes the hashes of one stream and returns how many events it has. When an event, or
// the lack of one, does not fit the chain, the error is a *Misfit. Who can rewrite a whole stream
// with its hashes and its head is not found out by it: keep a copy of heads elsewhere, and compare
// them.
func Verify(ctx context.Context, q sqlx.QueryerContext, stream string) (count int64, err error) {
	var last Head
	for least := int64(0); ; { // the stream may grow meanwhile
		if last, err = follow(ctx, q, stream, last); err != nil {
			return 0, err
		}
		if last.Version < least {
			return 0, &MismatchError{stream, last.Version + 1,
				fmt.Sprintf("it is missing: the stream has ended at %d", least)}
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
				"the stream has ended with another event, or before the last one"}
		}
		least = head.Version // what is read after a head has the events up to it
	}
}

// follow recomputes the hashes of the events that come after a head, and returns the last.
func follow(ctx context.Context, q sqlx.QueryerContext, stream string, last Head) (Head, error) {
	for { // in pieces, so that a long stream does not have to fit the memory
		facts, err := readRaw(ctx, q, stream, last.Version, maxRead)
		if err != nil {
			return last, err
		}
		for _, f := range facts {
			if err := f.follows(last); err != nil {
				return last, err
			}
			last = Head{f.Version, f.Hash}
		}
		if len(facts) < maxRead {
			return last, nil
		}
	}
}
