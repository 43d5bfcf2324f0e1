package web

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/idempotency"
)

// Transactor runs transactions, and runs one again if it conflicts with another one.
// quadrille.Service implements it.
type Transactor interface {
	Tx(ctx context.Context, f func(ctx context.Context, tx *sqlx.Tx) error) error
}

// Answer is the answer of an effect to the client.
type Answer struct {
	Status   int
	Location string
	Body     any
}

// Once runs the effect of a request with an Idempotency-Key and answers. The effect, the claim of
// the key and the stored answer are one transaction. A request that was completed before gets the
// stored answer.
func Once(w http.ResponseWriter, r *http.Request, t Transactor, body []byte,
	effect func(ctx context.Context, tx *sqlx.Tx) (Answer, error)) error {
	request, err := requestOf(r, body)
	if err != nil {
		return err
	}
	var response idempotency.Response
	var replayed bool
	err = t.Tx(r.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
		response, replayed, err = idempotency.Do(ctx, tx, request, func() (idempotency.Response, error) {
			answer, err := effect(ctx, tx)
			if err != nil {
				return idempotency.Response{}, err
			}
			return encode(answer)
		})
		return err
	})
	if err != nil {
		return err
	}
	respond(w, response, replayed)
	return nil
}

// requestOf identifies a request by its client, its key and a fingerprint of its method, path and
// body.
func requestOf(r *http.Request, body []byte) (idempotency.Request, error) {
	key, err := idempotency.KeyOf(r.Header)
	return idempotency.Request{
		Client: ClientOf(r.Context()), Key: key, Fingerprint: idempotency.Fingerprint(r.Method,
			r.URL.Path, body),
	}, err
}

// encode returns an answer in the form in which it is stored and sent.
func encode(answer Answer) (idempotency.Response, error) {
	var b bytes.Buffer
	if err := json.MarshalWrite(&b, answer.Body); err != nil {
		return idempotency.Response{}, fmt.Errorf("encode answer: %w", err)
	}
	return idempotency.Response{Status: answer.Status, Location: answer.Location, Body: b.Bytes()}, nil
}

func respond(w http.ResponseWriter, response idempotency.Response, replayed bool) {
	if response.Location != "" {
		w.Header().Set("Location", response.Location)
	}
	if replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(response.Status)
	_, _ = w.Write(response.Body) // an error means that the client has disconnected
}

// Invalid turns the error of a payload's Validate method into a Problem.
func Invalid(err error) error {
	if err == nil {
		return nil
	}
	return Problemf(http.StatusBadRequest, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// NotFound returns the Problem for an object that does not exist.
func NotFound(what, id string) error {
	return Problemf(http.StatusNotFound, "there is no %s %.64q", what, id)
}
