// Package idempotency makes a request take effect once although its client repeats it, by the
// Idempotency-Key header of the IETF draft of that name.
//
// It promises that requests with one key of one client have one effect and one answer: the claim of
// the key, the effect and the stored answer are one transaction. An answer of the class 5xx is never
// stored. It does not know HTTP beyond that header: the caller turns its errors into answers.
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

// ErrNotStored says that the effect answers with 5xx. Such an answer is not stored, so that the request
// can be repeated; therefore the effect must not stay either.
var ErrNotStored = errors.New("an answer of the class 5xx is not stored")

// KeyOf returns the key of a request, quoted as the draft has it or bare. It is ErrKey when there is
// none, more than one, or one with characters that do not print.
func KeyOf(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) != 1 {
		return "", fmt.Errorf("%w: %d headers, want one", ErrKey, len(values))
	}
	key := strings.TrimSpace(values[0])
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
func Do(ctx context.Context, tx *sqlx.Tx, r Request, effect func() (Response, error)) (answer Response, replayed bool, err error) {
	mine, stored, err := claim(ctx, tx, r)
	switch {
	case err != nil:
		return Response{}, false, fmt.Errorf("claim idempotency key: %w", err)
	case !mine:
		return Response{}, false, ErrInProgress
	case stored != nil && !bytes.Equal(stored.fingerprint, r.Fingerprint):
		return Response{}, false, ErrMismatch
	case stored != nil:
		return stored.Response, true, nil
	}
	if answer, err = effect(); err != nil {
		return Response{}, false, err
	}
	if answer.Status >= http.StatusInternalServerError {
		return answer, false, fmt.Errorf("%w: %d", ErrNotStored, answer.Status)
	}
	insert, err := postgres.Prepared(ctx, tx, `INSERT INTO idempotency_keys (client, key, fingerprint, status, location, body) VALUES ($1, $2, $3, $4, $5, $6)`)
	if err == nil {
		_, err = insert.Exec(ctx, r.Client, r.Key, r.Fingerprint, answer.Status, answer.Location, answer.Body)
	}
	if postgres.IsUniqueViolation(err) {
		return Response{}, false, fmt.Errorf("store answer of idempotency key: %w: %w", postgres.ErrRaced, err)
	}
	if err != nil {
		return Response{}, false, fmt.Errorf("store answer of idempotency key: %w", err)
	}
	return answer, false, nil
}

// completed is what is stored of a completed request.
type completed struct {
	Response
	fingerprint []byte
}

// claim locks the key and looks it up, in one statement. The lock ends with the transaction, so
// a crash leaves no key "in progress". The statement's snapshot may be older than the lock: then a
// request that has just completed is not seen, the insert of its key fails, and the transaction is
// run again.
func claim(ctx context.Context, tx *sqlx.Tx, r Request) (mine bool, stored *completed, err error) {
	query, err := postgres.Prepared(ctx, tx, `SELECT l.mine, k.fingerprint, k.status, k.location, k.body
		FROM (SELECT pg_try_advisory_xact_lock(hashtextextended($1 || chr(1) || $2, 0)) AS mine) AS l
		LEFT JOIN idempotency_keys AS k ON k.client = $1 AND k.key = $2`)
	if err != nil {
		return false, nil, err
	}
	rows, err := query.Query(ctx, r.Client, r.Key)
	if err != nil {
		return false, nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var status sql.NullInt64
		var location sql.NullString
		var c completed
		if err := rows.Scan(&mine, &c.fingerprint, &status, &location, &c.Body); err != nil {
			return false, nil, err
		}
		if status.Valid {
			c.Status, c.Location = int(status.Int64), location.String
			stored = &c
		}
	}
	return mine, stored, rows.Err()
}
