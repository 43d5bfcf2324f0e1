// Package web is what the HTTP of the four services has in common: strict JSON in, JSON or RFC 9457
// problem details out, bounds on everything, bearer tokens, idempotent requests, health and
// metrics.
//
// It promises that no request body is read beyond its bound, that what a client cannot have meant
// is refused with the path of the field, and that an internal error says nothing about the inside.
package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/postgres"
)

// The bounds of a request.
const (
	maxBody        = 64 << 10
	requestTimeout = 8 * time.Second
	retryAfter     = 1 // seconds
)

// Problem is an error that the client is told. Its form is that of RFC 9457.
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
	Type   string `json:"type,omitempty"` // a page about this kind of problem
}

func (p Problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Title, p.Detail) }

// Problemf makes a Problem with the status's own title.
func Problemf(status int, format string, args ...any) Problem {
	return Problem{Status: status, Title: http.StatusText(status),
		Detail: fmt.Sprintf(format, args...)}
}

// Handler is an HTTP handler that returns what goes wrong.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Handle bounds a handler in time and turns its error into a problem; what the client is not told
// is logged.
func Handle(log zerolog.Logger, h Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		err := h(w, r.WithContext(ctx))
		if err == nil {
			return
		}
		p := problemOf(err)
		if p.Status >= http.StatusInternalServerError && ctx.Err() != nil {
			// The driver of the database has its own words for it.
			if p = problemOf(ctx.Err()); r.Context().Err() != nil {
				p = unfinished()
			}
		}
		if p.Status >= http.StatusInternalServerError {
			log.Error().Err(err).Str("method", r.Method).Str("path", r.URL.Path).Msg("request failed")
		}
		WriteProblem(w, p)
	}
}

// problemOf maps errors to answers. A database that is away, and a commit whose outcome is unknown,
// are 503: the client may repeat the request with the same key and will learn what became of it.
func problemOf(err error) Problem {
	var p Problem
	var refusal *consumer.Refusal
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &refusal):
		return Problemf(statusOf(refusal.Code), "%s", refusal.Detail)
	case errors.Is(err, idempotency.ErrKey):
		return Problem{Status: http.StatusBadRequest, Title: "Idempotency-Key", Detail: err.Error(),
			Type: "https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header"}
	case errors.Is(err, idempotency.ErrInProgress):
		return Problemf(http.StatusConflict, "%s", err)
	case errors.Is(err, idempotency.ErrMismatch):
		return Problemf(http.StatusUnprocessableEntity, "%s", err)
	case errors.Is(err, context.Canceled):
		return unfinished()
	case errors.Is(err, context.DeadlineExceeded):
		return Problemf(http.StatusServiceUnavailable, "the request took longer than %s", requestTimeout)
	}
	switch postgres.ClassOf(err) {
	case postgres.Lost, postgres.Busy, postgres.Retry:
		return Problemf(http.StatusServiceUnavailable, "the database is not available, try again")
	default:
		return internal()
	}
}

// statusOf returns the status of a refusal. A code that is not known here is a refusal all the
// same.
func statusOf(code string) int {
	switch code {
	case consumer.NotFound:
		return http.StatusNotFound
	case consumer.Conflict:
		return http.StatusConflict
	}
	return http.StatusUnprocessableEntity
}

// unfinished is the answer to a request whose connection ended first, or seemed to: a client that
// has closed only its own side still reads.
func unfinished() Problem {
	return Problemf(http.StatusRequestTimeout, "the connection ended before the request was "+
		"handled; ask again, with the same Idempotency-Key")
}

// internal says nothing about the inside.
func internal() Problem {
	return Problemf(http.StatusInternalServerError, "the request could not be handled")
}

// WriteProblem answers with a problem; one that may pass says when to come again.
func WriteProblem(w http.ResponseWriter, p Problem) {
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusConflict {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if p.Status == http.StatusRequestTimeout {
		w.Header().Set("Connection", "close")
	}
	p.Detail = escaped(p.Detail)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.MarshalWrite(w, p, jsontext.AllowInvalidUTF8(true)) // the client has gone when this fails
}

// Write answers with JSON.
func Write(w http.ResponseWriter, status int, body any) error {
	var b bytes.Buffer
	if err := json.MarshalWrite(&b, body); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client has gone when this fails
	return nil
}

// Decode reads a body as strict JSON: no unknown fields, no duplicate keys, nothing behind it. What
// is wrong is told with the path of the field.
func Decode(body []byte, into any) error {
	err := json.Unmarshal(body, into, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	semantic, ok := errors.AsType[*json.SemanticError](err)
	if _, syntactic := errors.AsType[*jsontext.SyntacticError](err); syntactic || !ok {
		return notJSON(err)
	}
	what := fmt.Sprintf("a %s does not fit here", semantic.JSONKind)
	switch {
	case errors.Is(err, json.ErrUnknownName):
		what = "unknown field"
	case len(semantic.JSONValue) > 0:
		what = fmt.Sprintf("%.40s does not fit here", semantic.JSONValue)
	}
	where := semantic.JSONPointer
	if where == "" {
		where = "/body"
	}
	return Problemf(http.StatusBadRequest, "%.200s: %.200s", fieldOf(where), what)
}

// fieldOf writes a JSON pointer as the checks of fields do: lines[0].quantity.
func fieldOf(pointer jsontext.Pointer) string {
	var b strings.Builder
	for token := range pointer.Tokens() {
		switch _, err := strconv.ParseUint(token, 10, 32); {
		case err == nil:
			b.WriteString("[" + token + "]")
		case b.Len() > 0:
			b.WriteString("." + token)
		default:
			b.WriteString(token)
		}
	}
	return b.String()
}

// ReadJSON is Read and Decode; the bytes are what an Idempotency-Key is compared by.
func ReadJSON(w http.ResponseWriter, r *http.Request, into any) ([]byte, error) {
	body, err := Read(w, r)
	if err != nil {
		return nil, err
	}
	return body, Decode(body, into)
}
