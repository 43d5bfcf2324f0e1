package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Answer is a pending call with its answer.
type Answer struct {
	Pending
	ID         string // the idempotency key: the id of the request, or of the event
	AnswerType string // empty: the call had no answer
	Answer     []byte
}

// Answer moves calls from the pending rows to the history of calls, in the transaction of the
// effects of their answers. It returns the calls that were still pending; another replica has
// answered all others.
func (i *Inbox) Answer(ctx context.Context, tx *sqlx.Tx, answers ...Answer) (map[Name]bool, error) {
	done := map[Name]bool{}
	if len(answers) == 0 {
		return done, nil
	}
	var owners, keys, ids, subjects, correlations, causations, types pq.StringArray
	var bodies pq.ByteaArray
	for _, a := range answers {
		e := a.Attributes.V
		owners, keys = append(owners, a.Owner), append(keys, a.Key)
		ids = append(ids, a.ID)
		subjects, correlations = append(subjects, e.Subject), append(correlations, e.CorrelationID)
		causations, types = append(causations, e.CausationID), append(types, a.AnswerType)
		bodies = append(bodies, a.Answer)
	}
	list, err := selectPrepared[Name](ctx, i, tx, `
		WITH answers AS (
			SELECT owner, key, id, subject, correlation_id, causation_id, type, answer
			FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
				$9::text[]) AS a (owner, key, subject, correlation_id, causation_id, type, answer, id)
		), done AS (
			DELETE FROM pending AS p USING answers AS a
			WHERE p.consumer = $1 AND p.owner = a.owner AND p.key = a.key
			RETURNING p.owner, p.key, p.type, p.body, p.attempts, p.created_at
		), kept AS (
			INSERT INTO calls (consumer, owner, id, type, subject, correlation_id, causation_id, request,
				attempts, answer_type, answer, requested_at)
			SELECT $1, d.owner, a.id::uuid, d.type, a.subject, a.correlation_id, a.causation_id, d.body,
				d.attempts, a.type, a.answer, d.created_at
			FROM done AS d JOIN answers AS a ON a.owner = d.owner AND a.key = d.key
			ON CONFLICT DO NOTHING
		)
		SELECT owner, key FROM done`,
		i.consumer, owners, keys, subjects, correlations, causations, types, bodies, ids)
	for _, n := range list {
		done[n] = true
	}
	return done, wrap("record answers", err)
}

// CallRecord is a call about a subject, answered or still pending.
type CallRecord struct {
	ID            string     `db:"id"`
	Type          string     `db:"type"`
	Subject       string     `db:"subject"`
	CorrelationID string     `db:"correlation_id"`
	CausationID   string     `db:"causation_id"`
	Attempts      int        `db:"attempts"` // failed attempts
	Reason        string     `db:"reason"`   // of the last failure, while the call is pending
	Due           *time.Time `db:"due"`      // of the next attempt; nil: answered, or parked
	Request       []byte     `db:"request"`
	AnswerType    string     `db:"answer_type"`
	Answer        []byte     `db:"answer"`
	RequestedAt   time.Time  `db:"requested_at"`
	AnsweredAt    *time.Time `db:"answered_at"` // nil: pending, or parked
}

// callsSQL are the calls that the service itself has requested, answered and pending ones.
const callsSQL = `SELECT id, type, coalesce(subject, '') AS subject, correlation_id, causation_id,
	attempts, reason, due, request, answer_type, answer, requested_at, answered_at
FROM (
	SELECT id::text, type, subject, correlation_id, causation_id, attempts, '' AS reason,
		NULL::timestamptz AS due, request, answer_type, answer, requested_at, answered_at
	FROM calls WHERE consumer = $1 AND owner = $1
	UNION ALL
	SELECT key, type, attributes->>'subject', coalesce(attributes->>'correlationid', ''),
		coalesce(attributes->>'causationid', ''), attempts, reason, due, body, '', NULL, created_at, NULL
	FROM pending WHERE consumer = $1 AND owner = $1 AND kind = 'call') AS c`

// Calls returns at most limit calls about a subject that the service itself has requested, oldest
// first.
func (i *Inbox) Calls(ctx context.Context, subject string, limit int) ([]CallRecord, error) {
	list := []CallRecord{}
	err := i.db.SelectContext(ctx, &list, callsSQL+` WHERE c.subject = $2
		ORDER BY requested_at LIMIT $3`,
		i.consumer, subject, limit)
	return list, wrap("read the calls about "+subject, err)
}

// FindCall returns a call that the service itself has requested, or ErrNotFound.
func (i *Inbox) FindCall(ctx context.Context, id string) (c CallRecord, err error) {
	err = i.db.GetContext(ctx, &c, callsSQL+` WHERE c.id = $2`, i.consumer, id)
	if errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("call %.80q: %w", id, ErrNotFound)
	}
	return c, wrap("find call", err)
}
