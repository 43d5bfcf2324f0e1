package web

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/rs/zerolog"
)

// ensureAnswer ensures that every request gets an answer. Without it, net/http answers 200 with an
// empty body when a handler writes nothing, and the client would believe that its request took
// effect.
func ensureAnswer(log zerolog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := &answerWriter{ResponseWriter: w}
		defer func() {
			cause := recover()
			if cause == nil && f.wrote {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(http.ErrAbortHandler) // the handler wants the connection closed
			}
			if cause != nil {
				log.Error().Str("panic", fmt.Sprint(cause)).Bytes("stack", debug.Stack()).
					Str("method", r.Method).Str("path", r.URL.Path).Msg("request failed")
			}
			if f.wrote {
				panic(http.ErrAbortHandler) // the client must not accept an incomplete answer
			}
			clear(w.Header())
			if cause == nil && r.Context().Err() != nil {
				WriteProblem(w, incomplete())
				return
			}
			if cause == nil {
				log.Error().Str("method", r.Method).Str("path",
					r.URL.Path).Msg("handler returned without an answer")
			}
			WriteProblem(w, internal())
		}()
		h.ServeHTTP(f, r)
	})
}

// answerWriter records whether an answer was written, and replaces the plain-text 404 and 405
// answers of the standard library with problem details.
type answerWriter struct {
	http.ResponseWriter
	wrote    bool
	replaced bool
}

func (f *answerWriter) WriteHeader(status int) {
	f.wrote = f.wrote || status >= http.StatusOK // a 1xx status precedes the answer
	if status < http.StatusBadRequest ||
		!strings.HasPrefix(f.Header().Get("Content-Type"), "text/plain") {
		f.ResponseWriter.WriteHeader(status)
		return
	}
	f.replaced = true
	WriteProblem(f.ResponseWriter, Problemf(status, ""))
}

func (f *answerWriter) Write(b []byte) (int, error) {
	f.wrote = true
	if f.replaced {
		return len(b), nil
	}
	return f.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (f *answerWriter) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// Guard protects against foreign web pages in a browser on this machine. A request that changes
// something must not come from a page of another origin. Without tokens, the Host must also be
// localhost or a loopback address: a page whose own host name resolves to this machine counts as
// the same origin in its browser.
func Guard(h http.Handler, tokens bool) http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		WriteProblem(w, Problemf(http.StatusForbidden,
			"requests from a web page of another origin are refused"))
	}))
	h = origin.Handler(h)
	if tokens {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]")
		}
		if !Loopback(host) {
			WriteProblem(w, Problemf(http.StatusMisdirectedRequest,
				"Host: %.100q is not localhost or a loopback address; other hosts need a tokens file",
				r.Host))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Loopback reports whether a host is this machine, without a DNS lookup.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
