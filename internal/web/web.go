// Package web contains the common HTTP code of the four services: strict JSON input, JSON or RFC
// 9457 problem details as output, limits on everything, bearer tokens, idempotent requests, health
// and metrics.
//
// It promises that no request body is read beyond its limit, that input which a client cannot have
// meant is refused with the path of the field, and that the answer to an internal error reveals no
// internals.
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
	"github.com/quadrille-go/quadrille/internal/telemetry"
	"github.com/quadrille-go/quadrille/postgres"
)

// The bounds of a request.
const (
	maxBody        = 64 << 10
	requestTimeout = 8 * time.Second
	retryAfter     = 1 // seconds
)

// Problem is an error that is sent to the client, as problem details of RFC 9457.
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
	Type   string `json:"type,omitempty"` // a page about this kind of problem
}

func (p Problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Title, p.Detail) }

// Problemf returns a Problem whose title is the text of the status.
func Problemf(status int, format string, args ...any) Problem {
	return Problem{Status: status, Title: http.StatusText(status),
		Detail: fmt.Sprintf(format, args...)}
}

// Handler is an HTTP handler that returns an error.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Handle limits the time of a handler and turns its error into a Problem. Errors of class 5xx are
// logged, because the client does not see them.
func Handle(log zerolog.Logger, h Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		telemetry.NameByRoute(r)
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		err := h(w, r.WithContext(ctx))
		if err == nil {
			return
		}
		p := problemOf(err)
		if p.Status >= http.StatusInternalServerError && ctx.Err() != nil {
			// The database driver returns errors of its own when the context ends.
			if p = problemOf(ctx.Err()); r.Context().Err() != nil {
				p = incomplete()
			}
		}
		if p.Status >= http.StatusInternalServerError {
			log.Error().Err(err).Str("method", r.Method).Str("path", r.URL.Path).Msg("request failed")
		}
		WriteProblem(w, p)
	}
}

// problemOf maps errors to answers. If the database is away or the outcome of a commit is unknown,
// the answer is 503: the client may repeat the request with the same key and gets the result.
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
		return incomplete()
	case errors.Is(err, context.DeadlineExceeded):
		return Problemf(http.StatusServiceUnavailable, "the request took longer than %s", requestTimeout)
	}
	switch postgres.ClassOf(err) {
	case postgres.Lost, postgres.Busy, postgres.Retry:
		return Problemf(http.StatusServiceUnavailable, "the database is not available; try again")
	default:
		return internal()
	}
}

// statusOf returns the status of a refusal. An unknown code is answered as a refusal, too.
func statusOf(code string) int {
	switch code {
	case consumer.NotFound:
		return http.StatusNotFound
	case consumer.Conflict:
		return http.StatusConflict
	}
	return http.StatusUnprocessableEntity
}

// incomplete is the answer to a request whose connection ended first. A client that has closed only
// its sending side still reads it.
func incomplete() Problem {
	return Problemf(http.StatusRequestTimeout, "the connection ended before the request was "+
		"handled; repeat the request with the same Idempotency-Key")
}

// internal is the answer to an internal error. It reveals no internals.
func internal() Problem {
	return Problemf(http.StatusInternalServerError, "the request could not be handled")
}

// WriteProblem answers with a Problem. If a retry may succeed, the answer has a Retry-After header.
func WriteProblem(w http.ResponseWriter, p Problem) {
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusConflict {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if p.Status == http.StatusRequestTimeout {
		w.Header().Set("Connection", "close")
	}
	p.Detail = escapeInvisible(p.Detail)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	// an error means that the client has disconnected
	_ = json.MarshalWrite(w, p, jsontext.AllowInvalidUTF8(true))
}

// Write answers with JSON.
func Write(w http.ResponseWriter, status int, body any) error {
	var b bytes.Buffer
	if err := json.MarshalWrite(&b, body); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // an error means that the client has disconnected
	return nil
}

// Decode reads a body as strict JSON: no unknown fields, no duplicate keys, no data after it. An
// error names the path of the field.
func Decode(body []byte, into any) error {
	err := json.Unmarshal(body, into, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	semantic, ok := errors.AsType[*json.SemanticError](err)
	if _, syntactic := errors.AsType[*jsontext.SyntacticError](err); syntactic || !ok {
		return jsonProblem(err)
	}
	what := fmt.Sprintf("a %s is not valid here", semantic.JSONKind)
	switch {
	case errors.Is(err, json.ErrUnknownName):
		what = "unknown field"
	case len(semantic.JSONValue) > 0:
		what = fmt.Sprintf("%.40s is not valid here", semantic.JSONValue)
	}
	where := semantic.JSONPointer
	if where == "" {
		where = "/body"
	}
	return Problemf(http.StatusBadRequest, "%.200s: %.200s", fieldOf(where), what)
}

// fieldOf formats a JSON pointer like the checks of fields do: lines[0].quantity.
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

// ReadJSON calls Read and Decode. The returned bytes are for the fingerprint of an Idempotency-Key.
func ReadJSON(w http.ResponseWriter, r *http.Request, into any) ([]byte, error) {
	body, err := Read(w, r)
	if err != nil {
		return nil, err
	}
	return body, Decode(body, into)
}
