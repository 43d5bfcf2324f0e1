package web_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// serve serves an API through web.Mux, without a database.
func serve(t *testing.T, api http.Handler) *webtest.Service {
	t.Helper()
	tokens, err := web.LoadTokens("")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(web.Mux(plainService(t), tokens, api, web.Concurrency))
	t.Cleanup(server.Close)
	return &webtest.Service{TB: t, URL: server.URL}
}

// A handler that ends without an answer, by return or panic, is not answered with success.
func TestNoRequestEndsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	gone := web.Handle(zerolog.Nop(), func(_ http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		return fmt.Errorf("read: %w", ctx.Err())
	})
	for name, c := range map[string]struct {
		status int // 0: the connection is closed
		api    http.HandlerFunc
	}{
		"nothing": {http.StatusInternalServerError, func(http.ResponseWriter, *http.Request) {}},
		"headers only": {http.StatusInternalServerError,
			func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Location", "/x") }},
		"panic": {http.StatusInternalServerError,
			func(http.ResponseWriter, *http.Request) { panic("hush") }},
		"nil pointer": {http.StatusInternalServerError,
			func(http.ResponseWriter, *http.Request) { var r *http.Request; _ = r.Host }},
		"information": {http.StatusInternalServerError,
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusEarlyHints) }},
		"cancelled": {http.StatusRequestTimeout, gone},
		"abort":     {0, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		"wrapped abort": {0, func(http.ResponseWriter,
			*http.Request) {
			panic(fmt.Errorf("x: %w", http.ErrAbortHandler))
		}},
		"panic in answer": {0, func(w http.ResponseWriter,
			_ *http.Request) {
			w.WriteHeader(http.StatusOK)
			panic("hush")
		}},
	} {
		a, err := serve(t, c.api).Try(t.Context(), "GET", "/", "")
		if c.status == 0 && err == nil || c.status != 0 && (err != nil || a.Status != c.status) ||
			strings.Contains(a.Body, "hush") || a.Header.Get("Location") != "" {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

// A client that has closed its sending side still reads, so its request is answered 408.
func TestEndedRequestIsAnswered(t *testing.T) {
	t.Parallel()
	for name, api := range map[string]http.Handler{
		"by the handler": web.Handle(zerolog.Nop(), func(_ http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return fmt.Errorf("an error of the driver")
		}),
		"by the frame": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}),
	} {
		s := serve(t, api)
		c := dial(t, s.URL)
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if err == nil {
			err = c.CloseWrite()
		}
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
	}
}

// Invisible characters that belong to the spelling of a name are accepted.
func TestSpellingsAreNotRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := web.Read(w, r)
		if err == nil {
			err = web.Write(w, http.StatusOK, string(body))
		}
		if err != nil {
			t.Error(err)
		}
	}))
	for text, status := range map[string]int{
		"Zoë Ångström-O’Neill": http.StatusOK, "e\u0301": http.StatusOK, "東京都　千代田区": http.StatusOK,
		"می\u200cشود": http.StatusOK, "क्\u200dष": http.StatusOK,
		"葛\U000e0100飾": http.StatusOK, "❤\ufe0f": http.StatusOK, "\ufffd": http.StatusOK,
		"a\u00a0b": http.StatusOK,
		"a\u200cb": http.StatusBadRequest, "a\u200db": http.StatusBadRequest,
		"می\u200c\u200cشود": http.StatusBadRequest, "a\ufe0f": http.StatusBadRequest,
		"\u200d": http.StatusBadRequest, "a\u00adb": http.StatusBadRequest,
		"a\u2029b": http.StatusBadRequest, "\ue000": http.StatusBadRequest, "a\tb": http.StatusBadRequest,
	} {
		quoted := `{"name":"` + strings.ReplaceAll(text, "\t", `\t`) + `"}`
		if a := s.Call("POST", "/", quoted); a.Status != status {
			t.Errorf("%+q: %d %s", text, a.Status, a.Body)
		}
	}
	for _, body := range []string{`{}{}`, `{"a":1,"a":2}`, `{`, `x`, "{\"a\":\"\xff\"}", `{} x`} {
		s.Want(s.Call("POST", "/", body), http.StatusBadRequest)
	}
}

// dial opens a connection to a service.
func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(quadrilletest.Timeout))
	return c.(*net.TCPConn)
}

// plainService is a service without servers.
func plainService(t *testing.T) *quadrille.Service {
	t.Helper()
	config := webtest.Config(webtest.NoDatabase, zerolog.Nop())
	config.Name = "plain"
	s, err := quadrille.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
