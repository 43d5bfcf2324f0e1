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

// bodyTimeout bounds how long a body may take to arrive. The sum of it and requestTimeout is less
// than writeTimeout.
const bodyTimeout = 6 * time.Second

// withBody reads the body before the handler runs. It refuses a body that is incomplete, too large,
// not JSON or contains invisible characters, so that no handler sees part of a request.
func withBody(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A ResponseRecorder has no deadlines; this error is harmless, since the server has time-outs of
		// its own.
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
		body, err := readBody(w, r)
		if err != nil {
			WriteProblem(w, problemOf(err))
			return
		}
		// The server keeps reading to detect that the client disconnects. If the deadline remained, it
		// would cancel the request's context.
		_ = control.SetReadDeadline(time.Time{})
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(w, r)
	})
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > 0 && !isJSON(r.Header) {
		return nil, wrongContentType()
	}
	body, err := Read(w, r)
	if err != nil || len(body) == 0 {
		return nil, err
	}
	if !isJSON(r.Header) { // a chunked body, whose length was not known before
		return nil, wrongContentType()
	}
	return body, checkJSON(body)
}

func wrongContentType() error {
	return Problemf(http.StatusUnsupportedMediaType, "Content-Type: must be application/json")
}

// isJSON requires the one content type that a foreign web page cannot send without a CORS
// preflight.
func isJSON(h http.Header) bool {
	values := h.Values("Content-Type")
	if len(values) != 1 {
		return false
	}
	kind, parameters, err := mime.ParseMediaType(values[0])
	charset, given := parameters["charset"]
	return err == nil && kind == "application/json" && (!given || strings.EqualFold(charset, "utf-8"))
}

// Read returns the body of a request, or a Problem if it is too large or incomplete.
func Read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, Problemf(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes",
			maxBody)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, Problemf(http.StatusRequestTimeout,
			"the body did not arrive within %s; the request had no effect", bodyTimeout)
	}
	if err != nil {
		return nil, Problemf(http.StatusBadRequest,
			"the body is incomplete; the request had no effect")
	}
	return body, nil
}

// checkJSON refuses a body that is not exactly one JSON value, and invisible characters in its
// strings.
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
				"body: unexpected data after the JSON value, which ends after %d bytes", decoder.InputOffset())
		case err != nil:
			return jsonProblem(err)
		case token.Kind() == '"':
			if err := checkVisible(fieldOf(decoder.StackPointer()), token.String()); err != nil {
				return err
			}
		}
	}
}

// jsonProblem returns the Problem for a body that is not JSON.
func jsonProblem(err error) error {
	where, what := jsontext.Pointer("/body"), "not valid JSON"
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		what = fmt.Sprintf("%s after %d bytes", syntactic.Err, syntactic.ByteOffset)
		if syntactic.JSONPointer != "" {
			where = syntactic.JSONPointer
		}
	}
	return Problemf(http.StatusBadRequest, "%.200s: %.200s", fieldOf(where), what)
}
