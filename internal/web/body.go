package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// bodyTimeout bounds how long a body may take to arrive. With requestTimeout it is within
// writeTimeout.
const bodyTimeout = 6 * time.Second

// whole gives a handler only a body that has arrived as a whole, within its bounds, and that is
// JSON without hidden characters. No handler meets a part of a request.
func whole(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A recorder of a test has no deadlines; the server's bounds are in force then.
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
		body, err := readWhole(w, r)
		if err != nil {
			WriteProblem(w, problemOf(err))
			return
		}
		// The server goes on reading, to learn when the client goes. Its deadline for that would end the
		// request's context.
		_ = control.SetReadDeadline(time.Time{})
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(w, r)
	})
}

func readWhole(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > 0 && !isJSON(r.Header) {
		return nil, errNotJSON()
	}
	body, err := Read(w, r)
	if err != nil || len(body) == 0 {
		return nil, err
	}
	if !isJSON(r.Header) { // of unknown length before
		return nil, errNotJSON()
	}
	return body, checkJSON(body)
}

func errNotJSON() error {
	return Problemf(http.StatusUnsupportedMediaType, "Content-Type: must be application/json")
}

// isJSON asks for the one type that a web page of somebody else may not send without leave.
func isJSON(h http.Header) bool {
	values := h.Values("Content-Type")
	if len(values) != 1 {
		return false
	}
	kind, parameters, err := mime.ParseMediaType(values[0])
	charset, given := parameters["charset"]
	return err == nil && kind == "application/json" && (!given || strings.EqualFold(charset, "utf-8"))
}

// Read returns the body of a request, or a problem when it is too large or has not arrived.
func Read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, Problemf(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes",
			maxBody)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, Problemf(http.StatusRequestTimeout,
			"the body has not arrived within %s; nothing was done", bodyTimeout)
	}
	if err != nil {
		return nil, Problemf(http.StatusBadRequest,
			"the body could not be read to its end; nothing was done")
	}
	return body, nil
}

// checkJSON refuses what is not one JSON value, and one with hidden characters in a text.
func checkJSON(body []byte) error {
	decoder := jsontext.NewDecoder(bytes.NewReader(body))
	for first := true; ; first = false {
		ended := !first && decoder.StackDepth() == 0
		token, err := decoder.ReadToken()
		switch {
		case ended && errors.Is(err, io.EOF):
			return nil
		case ended:
			return Problemf(http.StatusBadRequest,
				"body: there is more after the value, which ends after %d bytes", decoder.InputOffset())
		case err != nil:
			return notJSON(err)
		case token.Kind() == '"':
			if err := checkSeen(fieldOf(decoder.StackPointer()), token.String()); err != nil {
				return err
			}
		}
	}
}

// notJSON is the problem of a body that is not JSON.
func notJSON(err error) error {
	where, what := jsontext.Pointer("/body"), "this is not JSON"
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		what = fmt.Sprintf("%s after %d bytes", syntactic.Err, syntactic.ByteOffset)
		if syntactic.JSONPointer != "" {
			where = syntactic.JSONPointer
		}
	}
	return Problemf(http.StatusBadRequest, "%.200s: %.200s", fieldOf(where), what)
}
