package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/idempotency"
)

func ExampleKeyOf() {
	key, err := idempotency.KeyOf(http.Header{"Idempotency-Key": {`"8e03978e"`}})
	fmt.Println(key, err)
	_, err = idempotency.KeyOf(http.Header{})
	fmt.Println(errors.Is(err, idempotency.ErrKey))
	// Output:
	// 8e03978e <nil>
	// true
}

// An HTTP handler runs its effect in the transaction in which the answer is stored. The service has
// the migrations of the package: Migrations: {"idempotency": idempotency.Migrations()}.
func ExampleDo() {
	var service *quadrille.Service // from quadrille.New
	http.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		key, err := idempotency.KeyOf(r.Header)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		request := idempotency.Request{Client: "ada", Key: key,
			Fingerprint: idempotency.Fingerprint(r.Method, r.URL.Path, body)}
		var answer idempotency.Response
		err = service.Tx(r.Context(), func(ctx context.Context, tx *sqlx.Tx) (err error) {
			answer, _, err = idempotency.Do(ctx, tx, request, func() (idempotency.Response, error) {
				_, err := tx.ExecContext(ctx, `INSERT INTO orders (text) VALUES ($1)`, string(body))
				return idempotency.Response{Status: http.StatusCreated, Body: []byte("created")}, err
			})
			return err
		})
		switch {
		case errors.Is(err, idempotency.ErrInProgress):
			http.Error(w, err.Error(), http.StatusConflict)
		case errors.Is(err, idempotency.ErrMismatch):
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			w.WriteHeader(answer.Status)
			_, _ = w.Write(answer.Body)
		}
	})
}
