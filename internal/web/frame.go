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

// answered sees to it that no request ends without an answer, which net/http would make a 200 with
// nothing in it: the client would take for done what was not done.
func answered(log zerolog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := &framed{ResponseWriter: w}
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
				panic(http.ErrAbortHandler) // a part of an answer must not pass for the whole
			}
			clear(w.Header())
			if cause == nil && r.Context().Err() != nil {
				WriteProblem(w, unfinished())
				return
			}
			if cause == nil {
				log.Error().Str("method", r.Method).Str("path", r.URL.Path).Msg("request was not answered")
			}
			WriteProblem(w, internal())
		}()
		h.ServeHTTP(f, r)
	})
}

// framed knows whether there is an answer, and makes problems of what the standard library answers
// in plain text: 404 and 405.
type framed struct {
	http.ResponseWriter
	wrote bool
	mute  bool
}

func (f *framed) WriteHeader(status int) {
	f.wrote = f.wrote || status >= http.StatusOK // below, the answer is still to come
	if status < http.StatusBadRequest ||
		!strings.HasPrefix(f.Header().Get("Content-Type"), "text/plain") {
		f.ResponseWriter.WriteHeader(status)
		return
	}
	f.mute = true
	WriteProblem(f.ResponseWriter, Problemf(status, ""))
}

func (f *framed) Write(b []byte) (int, error) {
	f.wrote = true
	if f.mute {
		return len(b), nil
	}
	return f.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (f *framed) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// Guard keeps web pages of others away, which a browser on this machine may have open. A request
// that changes something must not come from a page of another origin. Where there is no token to
// ask for, the host must be this machine's by name or number: a page whose own name leads here is
// of the same origin for its browser.
func Guard(h http.Handler, tokens bool) http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		WriteProblem(w, Problemf(http.StatusForbidden,
			"a web page of another origin may not ask for this"))
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
				"Host: %.100q is not localhost or a loopback address, and others are served with tokens only",
				r.Host))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Loopback tells whether a host is this machine, without asking anybody.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
