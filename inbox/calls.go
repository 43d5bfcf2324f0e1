package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Answer is what a call has returned.
type Answer struct {
	Pending
	AnswerType string // empty: the call had no answer
	Answer     []byte
}

// Answer moves calls from what waits into the history of calls, in the transaction of the effects
// of their answers. It tells which of them were still there: the others are another replica's.
func (i *Inbox) Answer(ctx context.Context, tx *sqlx.Tx, answers ...Answer) (map[Name]bool, error) {
	done := map[Name]bool{}
	if len(answers) == 0 {
		return done, nil
	}
	var owners, keys, subjects, correlations, causations, types pq.StringArray
	var bodies pq.ByteaArray
	for _, a := range answers {
		e := a.Attributes.V
		owners, keys = append(owners, a.Owner), append(keys, a.Key)
		subjects, correlations = append(subjects, e.Subject), append(correlations, e.CorrelationID)
		causations, types = append(causations, e.CausationID), append(types, a.AnswerType)
		bodies = append(bodies, a.Answer)
	}
	list, err := pick[Name](ctx, i, tx, `
		WITH answers AS (
			SELECT owner, key, subject, correlation_id, causation_id, type, answer
			FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[])
				AS a (owner, key, subject, correlation_id, causation_id, type, answer)
		), done AS (
			DELETE FROM pending AS p USING answers AS a
			WHERE p.consumer = $1 AND p.owner = a.owner AND p.key = a.key
			RETURNING p.owner, p.key, p.type, p.body, p.attempts, p.created_at
		), kept AS (
			INSERT INTO calls (consumer, owner, id, type, subject, correlation_id, causation_id, request,
				attempts, answer_type, answer, requested_at)
			SELECT $1, d.owner, d.key::uuid, d.type, a.subject, a.correlation_id, a.causation_id, d.body,
				d.attempts, a.type, a.answer, d.created_at
			FROM done AS d JOIN answers AS a ON a.owner = d.owner AND a.key = d.key
			ON CONFLICT DO NOTHING
		)
		SELECT owner, key FROM done`,
		i.consumer, owners, keys, subjects, correlations, causations, types, bodies)
	for _, n := range list {
		done[n] = true
	}
	return done, wrap("record answers", err)
}

// CallRecord is a call in the history of a subject: answered, or still waiting.
type CallRecord struct {
	ID            string     `db:"id"`
	Type          string     `db:"type"`
	CorrelationID string     `db:"correlation_id"`
	CausationID   string     `db:"causation_id"`
	Attempts      int        `db:"attempts"` // that failed
	Reason        string     `db:"reason"`   // of the last failure, while the call waits
	Due           *time.Time `db:"due"`      // of the next attempt; nil: answered, or parked
	Request       []byte     `db:"request"`
	AnswerType    string     `db:"answer_type"`
	Answer        []byte     `db:"answer"`
	RequestedAt   time.Time  `db:"requested_at"`
	AnsweredAt    *time.Time `db:"answered_at"` // nil: it waits, or is parked
}

// Calls returns the calls about a subject that the service itself has requested, answered ones and
// waiting ones, oldest first, at most limit.
func (i *Inbox) Calls(ctx context.Context, subject string, limit int) ([]CallRecord, error) {
	list := []CallRecord{}
	err := i.db.SelectContext(ctx, &list, `
		SELECT id::text, type, correlation_id, causation_id, attempts, '' AS reason,
			NULL::timestamptz AS due, request, answer_type, answer, requested_at, answered_at
		FROM calls WHERE consumer = $1 AND owner = $1 AND subject = $2
		UNION ALL
		SELECT key, type, coalesce(attributes->>'correlationid', ''),
			coalesce(attributes->>'causationid', ''), attempts, reason, due, body, '', NULL, created_at,
			NULL
		FROM pending WHERE consumer = $1 AND owner = $1 AND kind = 'call' AND attributes->>'subject' = $2
		ORDER BY requested_at LIMIT $3`, i.consumer, subject, limit)
	return list, wrap("read the calls about "+subject, err)
}

// ForgetCalls deletes answered calls that are older than keep, at most limit of them, and returns
// how many they were.
func (i *Inbox) ForgetCalls(ctx context.Context, keep time.Duration, limit int) (int64, error) {
	result, err := i.db.ExecContext(ctx, `DELETE FROM calls WHERE ctid = ANY(ARRAY(
		SELECT ctid FROM calls WHERE answered_at < now() - $1 * interval '1 second'
		ORDER BY answered_at LIMIT $2 FOR UPDATE SKIP LOCKED))`, keep.Seconds(), limit)
	if err != nil {
		return 0, fmt.Errorf("forget old calls: %w", err)
	}
	return result.RowsAffected()
}
