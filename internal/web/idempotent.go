package web

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/postgres"
)

// Transactor is what runs transactions: a quadrille.Service.
type Transactor interface {
	Tx(ctx context.Context, f func(tx *sqlx.Tx) error) error
	Context(ctx context.Context) context.Context
}

// Answer is what an effect wants to say.
type Answer struct {
	Status   int
	Location string
	Body     any
}

// maxRaces bounds how often a transaction is run again because another was first.
const maxRaces = 10

// InTx runs f in a transaction, again when another was first.
func InTx(ctx context.Context, t Transactor, f func(ctx context.Context, tx *sqlx.Tx) error) error {
	ctx = t.Context(ctx)
	var err error
	for range maxRaces {
		err = t.Tx(ctx, func(tx *sqlx.Tx) error { return f(ctx, tx) })
		if postgres.ClassOf(err) != postgres.Retry {
			return err
		}
	}
	return err
}

// Once runs the effect of a request with an Idempotency-Key in one transaction with the claim of
// the key and the answer, and answers; a request that was completed before gets the stored answer.
func Once(w http.ResponseWriter, r *http.Request, t Transactor, body []byte,
	effect func(ctx context.Context, tx *sqlx.Tx) (Answer, error)) error {
	request, err := requestOf(r, body)
	if err != nil {
		return err
	}
	var response idempotency.Response
	var replayed bool
	err = InTx(r.Context(), t, func(ctx context.Context, tx *sqlx.Tx) error {
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

// requestOf identifies a request by its client, its key and all that it asks.
func requestOf(r *http.Request, body []byte) (idempotency.Request, error) {
	key, err := idempotency.KeyOf(r.Header)
	return idempotency.Request{
		Client: ClientOf(r.Context()), Key: key, Fingerprint: idempotency.Fingerprint(r.Method,
			r.URL.Path, body),
	}, err
}

// encode makes of an answer what is stored and sent.
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
	_, _ = w.Write(response.Body) // the client has gone when this fails
}

// Refusal is what a reaction to a command returns instead of an effect. It is never said: the HTTP
// handler turns it into an answer.
type Refusal struct {
	Status int
	Detail string
	About  string
}

func (Refusal) EventType() string { return "refused" }

// Subject is what the command was about.
func (r Refusal) Subject() string { return r.About }

// Refused returns the refusal among what reactions said, as a problem.
func Refused(published []events.Event) error {
	for _, e := range published {
		if r, ok := e.Data.(Refusal); ok {
			return Problemf(r.Status, "%s", r.Detail)
		}
	}
	return nil
}

// Invalid turns the error of a payload's Validate into a problem.
func Invalid(err error) error {
	if err == nil {
		return nil
	}
	return Problemf(http.StatusBadRequest, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// NotFound is the answer to a question about what is not there.
func NotFound(what, id string) error {
	return Problemf(http.StatusNotFound, "there is no %s %.64q", what, id)
}
