// Package idempotency makes a request take effect once although its client repeats it, by the
// Idempotency-Key header of the IETF draft of that name.
//
// It promises that requests with one key of one client have one effect and one answer: the claim of
// the key, the effect and the stored answer are one transaction. An answer of the class 5xx is
// never stored. It does not know HTTP beyond that header: the caller turns its errors into answers.
package idempotency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are those of the line "idempotency".
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// MaxKey is the longest key that is accepted, in bytes.
const MaxKey = 255

// The draft's answers are 400, 409 and 422, in this order.
var (
	ErrKey        = errors.New("Idempotency-Key is missing or not valid")
	ErrInProgress = errors.New("a request with this Idempotency-Key is in progress")
	ErrMismatch   = errors.New("this Idempotency-Key was used for another request")
)

// ErrNotStored says that the effect answers with 5xx. Such an answer is not stored, so that the
// request can be repeated; therefore the effect must not stay either.
var ErrNotStored = errors.New("an answer of the class 5xx is not stored")

// KeyOf returns the key of a request, quoted as the draft has it or bare. It is ErrKey when there
// is none, more than one, or one with characters that do not print.
func KeyOf(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) != 1 {
		return "", fmt.Errorf("%w: %d headers, want one", ErrKey, len(values))
	}
	key := strings.Trim(values[0], " \t")
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if key == "" || len(key) > MaxKey {
		return "", fmt.Errorf("%w: %d characters, want 1 to %d", ErrKey, len(key), MaxKey)
	}
	for _, c := range []byte(key) {
		if c < 0x20 || c > 0x7e || c == '"' {
			return "", fmt.Errorf("%w: it has a character that is not printable ASCII, or a quote", ErrKey)
		}
	}
	return key, nil
}

// Request identifies a request. Client scopes the key: nobody sees the answers of others.
type Request struct {
	Client      string
	Key         string
	Fingerprint []byte
}

// Fingerprint is equal for requests that are equal to the byte.
func Fingerprint(method, path string, body []byte) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s\n%s", method, path, body))
	return sum[:]
}

// Response is what is stored and replayed.
type Response struct {
	Status   int    `db:"status"`
	Location string `db:"location"`
	Body     []byte `db:"body"`
}

// Do runs effect in tx unless the request was completed before; then it returns the stored answer
// and replayed. Its errors are ErrInProgress, ErrMismatch, ErrNotStored, those of the database, and
// those of effect; after any of them the caller rolls back.
func Do(ctx context.Context, tx *sqlx.Tx, r Request,
	effect func() (Response, error)) (answer Response, replayed bool, err error) {
	results, err := DoAll(ctx, tx, []Request{r}, func([]int) ([]Response, error) {
		answer, err = effect()
		return []Response{answer}, err
	})
	if err != nil {
		return answer, false, err
	}
	return results[0].Response, results[0].Replayed, results[0].Err
}

// Result is what became of one of several requests. Err is ErrInProgress or ErrMismatch: then it
// had no effect, and the others are none the worse.
type Result struct {
	Response
	Replayed bool
	Err      error
}

// DoAll is Do for several requests in one transaction, with as many statements as for one. Effect
// is given the places of those in requests that are to take effect, and returns their answers in
// that order. Its own error, ErrNotStored and those of the database concern all of them: the caller
// rolls back.
func DoAll(ctx context.Context, tx *sqlx.Tx, requests []Request,
	effect func(todo []int) ([]Response, error)) ([]Result, error) {
	claims, err := claim(ctx, tx, requests)
	if err != nil {
		return nil, fmt.Errorf("claim idempotency key: %w", err)
	}
	type name struct{ client, key string }
	results := make([]Result, len(requests))
	seen := map[name]bool{}
	var todo []int
	for i, r := range requests {
		switch c := claims[i]; {
		case !c.mine, seen[name{r.Client, r.Key}]: // the lock does not tell two in one transaction apart
			results[i].Err = ErrInProgress
		case c.stored && !bytes.Equal(c.fingerprint, r.Fingerprint):
			results[i].Err = ErrMismatch
		case c.stored:
			results[i].Response, results[i].Replayed = c.Response, true
		default:
			seen[name{r.Client, r.Key}] = true
			todo = append(todo, i)
		}
	}
	if len(todo) == 0 {
		return results, nil
	}
	answers, err := effect(todo)
	if err != nil {
		return nil, err
	}
	for n, i := range todo {
		if answers[n].Status >= http.StatusInternalServerError {
			return nil, fmt.Errorf("%w: %d", ErrNotStored, answers[n].Status)
		}
		results[i].Response = answers[n]
	}
	return results, store(ctx, tx, requests, results, todo)
}

// store keeps the answers of requests that took effect.
func store(ctx context.Context, tx *sqlx.Tx, requests []Request, results []Result,
	todo []int) error {
	var clients, keys, locations pq.StringArray
	var fingerprints, bodies pq.ByteaArray
	var statuses pq.Int64Array
	for _, i := range todo {
		r, answer := requests[i], results[i].Response
		clients, keys, fingerprints = append(clients, r.Client), append(keys, r.Key),
			append(fingerprints, r.Fingerprint)
		statuses, locations, bodies = append(statuses, int64(answer.Status)),
			append(locations, answer.Location), append(bodies, answer.Body)
	}
	insert, err := postgres.Prepared(ctx, tx, `INSERT INTO idempotency_keys (client, key, fingerprint,
		status, location, body)
		SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::int[], $5::text[], $6::bytea[])`)
	if err == nil {
		_, err = insert.Exec(ctx, clients, keys, fingerprints, statuses, locations, bodies)
	}
	if postgres.IsUniqueViolation(err) {
		return fmt.Errorf("store answer of idempotency key: %w: %w", postgres.ErrRaced, err)
	}
	if err != nil {
		return fmt.Errorf("store answer of idempotency key: %w", err)
	}
	return nil
}

// claimed is what is known of a key.
type claimed struct {
	Response
	mine        bool // its lock is this transaction's
	stored      bool // a request was completed under it
	fingerprint []byte
}

// claim locks keys and looks them up, in one statement. The locks end with the transaction, so
// a crash leaves no key "in progress". The statement's snapshot may be older than a lock: then a
// request that has just completed is not seen, the insert of its key fails, and the transaction is
// run again.
func claim(ctx context.Context, tx *sqlx.Tx, requests []Request) ([]claimed, error) {
	var clients, keys pq.StringArray
	for _, r := range requests {
		clients, keys = append(clients, r.Client), append(keys, r.Key)
	}
	query, err := postgres.Prepared(ctx, tx, `
		SELECT r.n, pg_try_advisory_xact_lock(hashtextextended(r.client || chr(1) || r.key, 0)),
			k.fingerprint, k.status, k.location, k.body
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS r (client, key, n)
		LEFT JOIN idempotency_keys AS k ON k.client = r.client AND k.key = r.key`)
	if err != nil {
		return nil, err
	}
	rows, err := query.Query(ctx, clients, keys)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	claims := make([]claimed, len(requests))
	for rows.Next() {
		var n int
		var status sql.NullInt64
		var location sql.NullString
		var c claimed
		if err := rows.Scan(&n, &c.mine, &c.fingerprint, &status, &location, &c.Body); err != nil {
			return nil, err
		}
		c.stored, c.Status, c.Location = status.Valid, int(status.Int64), location.String
		claims[n-1] = c
	}
	return claims, rows.Err()
}
