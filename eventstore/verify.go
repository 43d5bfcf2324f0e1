package eventstore

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Misfit is the first event of a stream that does not fit what is stored around it.
type Misfit struct {
	Stream  string `json:"stream"`
	Version int64  `json:"version"`
	Why     string `json:"why"`
}

func (m *Misfit) Error() string {
	return fmt.Sprintf("event %d of stream %s does not fit: %s", m.Version, m.Stream, m.Why)
}

// Verify recomputes the hashes of one stream and returns how many events it has. When an event, or the
// lack of one, does not fit the chain, the error is a *Misfit. Who can rewrite a whole stream with its
// hashes and its head is not found out by it: keep a copy of heads elsewhere, and compare them.
func Verify(ctx context.Context, q sqlx.QueryerContext, stream string) (count int64, err error) {
	var last Head
	for least := int64(0); ; { // the stream may grow meanwhile
		if last, err = follow(ctx, q, stream, last); err != nil {
			return 0, err
		}
		if last.Version < least {
			return 0, &Misfit{stream, last.Version + 1, fmt.Sprintf("it is missing: the stream has ended at %d", least)}
		}
		heads, err := Heads(ctx, q, stream)
		if err != nil {
			return 0, err
		}
		head := heads[stream]
		if head == last {
			return last.Version, nil
		}
		if head.Version <= last.Version {
			return 0, &Misfit{stream, max(1, head.Version), "the stream has ended with another event, or before the last one"}
		}
		least = head.Version // what is read after a head has the events up to it
	}
}

// follow recomputes the hashes of the events that come after a head, and returns the last.
func follow(ctx context.Context, q sqlx.QueryerContext, stream string, last Head) (Head, error) {
	for { // in pieces, so that a long stream does not have to fit the memory
		facts, err := Read(ctx, q, stream, last.Version, maxRead)
		if err != nil {
			return last, err
		}
		for _, f := range facts {
			if f.Version != last.Version+1 {
				return last, &Misfit{stream, last.Version + 1, "it is missing"}
			}
			last.Version++
			last.Hash = next(last.Hash, f.Stream, f.Version, f.Record.ID, f.Record.Type, f.headers, f.Record.Data)
			if last.Hash != f.Hash {
				return last, &Misfit{stream, f.Version, "its hash is not that of what is stored, after the events before it"}
			}
		}
		if len(facts) < maxRead {
			return last, nil
		}
	}
}
