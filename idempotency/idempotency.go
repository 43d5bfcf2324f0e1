// Package idempotency makes a request take effect once, even if its client repeats it. It uses the
// Idempotency-Key header of the IETF draft with that name.
//
// Requests of one client with the same key have one effect and one answer, because the claim of the
// key, the effect and the stored answer are one transaction. A 5xx answer is never stored. The
// package uses nothing of HTTP but that header: the caller turns its errors into answers.
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

	"github.com/quadrille-go/quadrille/internal/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the files of the line "idempotency".
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// MaxKey is the longest key that is accepted, in bytes.
const MaxKey = 255

// These errors are answered with 400, 409 and 422, in this order, as the draft requires.
var (
	ErrKey        = errors.New("Idempotency-Key is missing or not valid")
	ErrInProgress = errors.New("a request with this Idempotency-Key is in progress")
	ErrMismatch   = errors.New("this Idempotency-Key was used for another request")
)

// ErrNotStored means that the answer of the effect is 5xx. It is not stored, so that the client can
// repeat the request. The caller must therefore roll the effect back.
var ErrNotStored = errors.New("a 5xx answer is not stored")

// KeyOf returns the key of a request, which may be quoted, as in the draft, or bare. The error is
// ErrKey if there is no key, more than one, or one with characters that are not printable.
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

// Request identifies a request. Each client has its own keys, so that none sees the answers of
// another.
type Request struct {
	Client      string
	Key         string
	Fingerprint []byte
}

// Fingerprint returns a hash that is equal only for requests that are equal byte for byte.
func Fingerprint(method, path string, body []byte) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s\n%s", method, path, body))
	return sum[:]
}

// Response is the answer to a request. It is stored, and returned again when the request is
// repeated.
type Response struct {
	Status   int    `db:"status"`
	Location string `db:"location"`
	Body     []byte `db:"body"`
}

// Do runs effect in tx. If the request was completed before, it does not run effect, returns the
// stored answer and sets replayed. Its errors are ErrInProgress, ErrMismatch, ErrNotStored, those
// of the database and those of effect. After an error the caller must roll back.
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

// Result is the result of one of several requests. If Err is ErrInProgress or ErrMismatch, this
// request had no effect; the other requests are not affected.
type Result struct {
	Response
	Replayed bool
	Err      error
}

// DoAll does the same as Do for several requests in one transaction, with as many statements as for
// one. It calls effect with the indexes of the requests that must take effect; effect returns their
// answers in the same order. An error of effect or of the database, and ErrNotStored, concern all
// requests: the caller must roll back.
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
		// A transaction can take the same lock twice, so seen detects a key that occurs twice.
		case !c.locked, seen[name{r.Client, r.Key}]:
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

// store inserts the answers of the requests that took effect.
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
	insert, err := pg.Prepared(ctx, tx, `INSERT INTO idempotency_keys (client, key, fingerprint,
		status, location, body)
		SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::int[], $5::text[], $6::bytea[])`)
	if err == nil {
		_, err = insert.Exec(ctx, clients, keys, fingerprints, statuses, locations, bodies)
	}
	if pg.IsUniqueViolation(err) {
		return fmt.Errorf("store the answer for an idempotency key: %w: %w", pg.ErrRaced, err)
	}
	if err != nil {
		return fmt.Errorf("store the answer for an idempotency key: %w", err)
	}
	return nil
}

// keyState is the state of a key in the database.
type keyState struct {
	Response
	locked      bool // this transaction has its lock
	stored      bool // a request with this key was completed
	fingerprint []byte
}

// claim locks keys and reads their rows, in one statement. The locks end with the transaction, so
// a crash leaves no key "in progress". The snapshot of the statement may be older than a lock. It
// then misses a request that has just completed, the insert of the same key fails, and the
// transaction runs again.
func claim(ctx context.Context, tx *sqlx.Tx, requests []Request) ([]keyState, error) {
	var clients, keys pq.StringArray
	for _, r := range requests {
		clients, keys = append(clients, r.Client), append(keys, r.Key)
	}
	query, err := pg.Prepared(ctx, tx, `
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
	claims := make([]keyState, len(requests))
	for rows.Next() {
		var n int
		var status sql.NullInt64
		var location sql.NullString
		var c keyState
		if err := rows.Scan(&n, &c.locked, &c.fingerprint, &status, &location, &c.Body); err != nil {
			return nil, err
		}
		c.stored, c.Status, c.Location = status.Valid, int(status.Int64), location.String
		claims[n-1] = c
	}
	return claims, rows.Err()
}
