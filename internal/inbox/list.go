package inbox

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// Listed is a parked event in a list, with the size of its body instead of the body.
type Listed struct {
	Owner     string    `db:"owner" json:"owner"`
	Key       string    `db:"key" json:"id"`
	Kind      Kind      `db:"kind" json:"kind"`
	Type      string    `db:"type" json:"type"`
	Subject   string    `db:"subject" json:"subject"`
	Size      int64     `db:"size" json:"size"` // of the body, in bytes
	Attempts  int       `db:"attempts" json:"attempts"`
	Reason    string    `db:"reason" json:"reason"`
	CreatedAt time.Time `db:"created_at" json:"created_at"`
	UpdatedAt time.Time `db:"updated_at" json:"updated_at"`
}

// cursor is the position at the end of a page of the list.
type cursor struct {
	At    time.Time
	Key   string
	Owner string
}

// ListParked returns a page of the parked events, oldest first, and the cursor of the next page,
// which is empty after the last one. The cursor of the first page is empty.
func (i *Inbox) ListParked(ctx context.Context, after string, limit int) (list []Listed,
	next string, err error) {
	var from cursor
	if after != "" {
		data, err := base64.RawURLEncoding.DecodeString(after)
		if err == nil {
			err = json.Unmarshal(data, &from)
		}
		if err != nil {
			return nil, "", fmt.Errorf("list parked: cursor %.40q: %w", after, ErrNotFound)
		}
	}
	list = []Listed{}
	err = i.db.SelectContext(ctx, &list, `SELECT owner, key, kind, type,
		coalesce(attributes->>'subject', '') AS subject, octet_length(body) AS size, attempts, reason,
		created_at, updated_at
		FROM pending WHERE consumer = $1 AND due IS NULL AND (created_at, key, owner) > ($2, $3, $4)
		ORDER BY created_at, key, owner LIMIT $5`, i.consumer, from.At, from.Key, from.Owner, limit+1)
	if err != nil {
		return nil, "", wrap("list parked", err)
	}
	if len(list) > limit {
		list = list[:limit]
		last := list[limit-1]
		data, err := json.Marshal(cursor{last.CreatedAt, last.Key, last.Owner})
		if err != nil {
			return nil, "", fmt.Errorf("list parked: %w", err)
		}
		next = base64.RawURLEncoding.EncodeToString(data)
	}
	return list, next, nil
}

// Waiting returns at most limit rows about a subject that pend for any reason, the oldest
// first. It reads the whole table, which is for a person who asks about one subject.
func (i *Inbox) Waiting(ctx context.Context, subject string, limit int) ([]Pending, error) {
	list := []Pending{}
	err := i.db.SelectContext(ctx, &list, `SELECT `+pendingColumns+` FROM pending
		WHERE consumer = $1 AND attributes->>'subject' = $2 ORDER BY created_at, key LIMIT $3`,
		i.consumer, subject, limit)
	return list, wrap("read what waits", err)
}
