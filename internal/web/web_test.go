package web_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

func TestMain(m *testing.M) { webtest.Main(m) }

// answer returns the answer of a handler to a request.
func answer(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestErrorsBecomeAnswersWithoutInternals(t *testing.T) {
	t.Parallel()
	secret := errors.New("password hush of table accounts")
	for _, c := range []struct {
		err    error
		status int
		want   string
		retry  bool
	}{
		{web.Problemf(http.StatusTeapot, "short and %s", "stout"), http.StatusTeapot, "short and stout",
			false},
		{fmt.Errorf("x: %w", idempotency.ErrKey), http.StatusBadRequest, `"type":"https://`, false},
		{idempotency.ErrInProgress, http.StatusConflict, "in progress", true},
		{idempotency.ErrMismatch, http.StatusUnprocessableEntity, "another request", false},
		{fmt.Errorf("%w: %w", postgres.ErrUnknownOutcome, secret), http.StatusServiceUnavailable,
			"not available", true},
		{&net.OpError{Op: "dial", Err: secret}, http.StatusServiceUnavailable, "not available", true},
		{postgres.ErrRaced, http.StatusServiceUnavailable, "not available", true},
		{context.DeadlineExceeded, http.StatusServiceUnavailable, "longer than", true},
		{idempotency.ErrNotStored, http.StatusInternalServerError, "could not be handled", false},
		{secret, http.StatusInternalServerError, "could not be handled", false},
		{web.Invalid(errors.New("a: 1\nb: 2")), http.StatusBadRequest, "a: 1; b: 2", false},
		{web.NotFound("order", "a\r\nb\xff"), http.StatusNotFound, `a\\r\\nb\\xff`, false},
		{web.Problemf(http.StatusBadRequest, "\xff"), http.StatusBadRequest, "\uFFFD", false},
		{web.Problemf(http.StatusBadRequest, "a\u202eb"), http.StatusBadRequest, `a\\u202eb`, false},
	} {
		h := web.Handle(zerolog.Nop(), func(http.ResponseWriter, *http.Request) error { return c.err })
		w := answer(h, httptest.NewRequest("GET", "/", nil))
		body := w.Body.String()
		if w.Code != c.status || !strings.Contains(body, c.want) || strings.Contains(body, "hush") {
			t.Errorf("%v: %d %s", c.err, w.Code, body)
		}
		if got := w.Header().Get("Retry-After") != ""; got != c.retry ||
			w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%v: headers %v", c.err, w.Header())
		}
	}
}

// What has not arrived as a whole may be followed by its rest: the connection is not used again.
func TestUnfinishedRequestEndsItsConnection(t *testing.T) {
	t.Parallel()
	for err, closes := range map[error]bool{context.Canceled: true, context.DeadlineExceeded: false} {
		h := web.Handle(zerolog.Nop(), func(http.ResponseWriter, *http.Request) error { return err })
		if w := answer(h, httptest.NewRequest("GET", "/",
			nil)); (w.Header().Get("Connection") == "close") != closes {
			t.Errorf("%v: %d, %v", err, w.Code, w.Header())
		}
	}
}

// An endless body is refused, and hardly more than the limit is read.
func TestBodyIsReadUpToItsLimit(t *testing.T) {
	t.Parallel()
	endless := &zeros{}
	r := httptest.NewRequest("POST", "/", endless)
	if _, err := web.Read(httptest.NewRecorder(), r); !strings.Contains(fmt.Sprint(err), "413") {
		t.Errorf("%v", err)
	}
	if endless.read > 1<<20 {
		t.Errorf("%d bytes of an endless body were read, want at most 1 MiB", endless.read)
	}
	if body, err := web.Read(httptest.NewRecorder(), httptest.NewRequest("POST", "/",
		strings.NewReader(strings.Repeat("x", 64<<10)))); err != nil || len(body) != 64<<10 {
		t.Errorf("the largest body: %d bytes, %v", len(body), err)
	}
}

type zeros struct{ read int }

func (z *zeros) Read(b []byte) (int, error) { z.read += len(b); return len(b), nil }

func TestStrictJSON(t *testing.T) {
	t.Parallel()
	var in struct {
		List []struct {
			N int64 `json:"n"`
		} `json:"list"`
		A struct {
			B int64 `json:"b"`
		} `json:"a"`
	}
	for body, want := range map[string]string{
		`{"list":[{"n":1},{"n":1e2}]}`: "list[1].n: 1e2 is not valid",
		`{"list":[{"n":"1"}]}`:         "list[0].n: ", `{"list":[{"m":1}]}`: "list[0].m: unknown field",
		`{"a":{"b":"1"}}`:       "a.b: ",
		`{"list":[],"list":[]}`: "list", `{"list":[]}x`: "body: ", ``: "body: ",
		`{"LIST":[]}`: "LIST: unknown field", "\ufeff{}": "body: ",
		`{"` + strings.Repeat("k", 60<<10) + `":1}`: "kkk", `{"list":{}}`: "list: ",
		`{"list":[{"n":9223372036854775808}]}`: "list[0].n: 9223372036854775808 ",
		"{\"\xff\":1}":                         "body: ", strings.Repeat(`{"list":`, 20_000): ": ",
	} {
		err := web.Decode([]byte(body), &in)
		if text := fmt.Sprint(err); err == nil || !strings.Contains(text, want) || len(text) > 600 ||
			strings.Contains(text, "Go ") {
			t.Errorf("%.50q: %v, want %q", body, err, want)
		}
	}
	if err := web.Decode([]byte(` {"list":[{"n":9223372036854775807}]} `), &in); err != nil ||
		in.List[0].N != 9223372036854775807 {
		t.Errorf("%+v, %v", in, err)
	}
}

func TestTokensNameTheirClients(t *testing.T) {
	t.Parallel()
	const ada, eve = "0123456789abcdef", "fedcba9876543210"
	tokens, err := web.LoadTokens(webtest.File(t, "# a comment\n\nada "+ada+"\n  eve\t"+eve+"  \n"))
	if err != nil {
		t.Fatal(err)
	}
	h := tokens.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(web.ClientOf(r.Context())))
	}))
	for header, client := range map[string]string{
		"Bearer " + ada: "ada", "bearer " + eve: "eve", "": "", ada: "", "Bearer": "", "Bearer ": "",
		"Basic " + ada:        "",
		"Bearer " + ada + " ": "", "Bearer " + ada[:15]: "", "Bearer # a": "",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", header)
		w := answer(h, r)
		switch {
		case client != "" && w.Body.String() != client:
			t.Errorf("%q is %d %q, want %s", header, w.Code, w.Body, client)
		case client == "" && (w.Code != http.StatusUnauthorized ||
			w.Header().Get("WWW-Authenticate") != "Bearer" || strings.Contains(w.Body.String(), ada)):
			t.Errorf("%q: %d %v %s", header, w.Code, w.Header(), w.Body)
		}
	}
	none, err := web.LoadTokens("")
	if err != nil {
		t.Fatal(err)
	}
	w := answer(none.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(web.ClientOf(r.Context())))
	})),
		httptest.NewRequest("GET", "/", nil))
	if w.Body.String() != "anonymous" {
		t.Errorf("without tokens the client is %q", w.Body)
	}
}

func TestInvalidTokensFileIsRefused(t *testing.T) {
	t.Parallel()
	const good = "ada 0123456789abcdef\n"
	for content, want := range map[string]string{
		"": "names no client", "# nobody\n": "names no client", "ada 0123456789abcde\n": "line 1 ", good +
			"0123456789abcdef\n": "line 2 ",
		good + "eve fedcba9876543210 x\n": "line 2 ", good + "eve fedcba9876543210 admin x\n": "line 2 ",
		good + "e\u202eve fedcba9876543210\n": "line 2 ", good + "eve 0123456789abcdef\n": "line 2 ",
		strings.Repeat("x", 70<<10): "tokens: ",
	} {
		_, err := web.LoadTokens(webtest.File(t, content))
		if err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "0123456789") {
			t.Errorf("%.40q: %v, want %q", content, err, want)
		}
	}
	if _, err := web.LoadTokens(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestWithoutTokensOnlyLoopbackIsServed(t *testing.T) {
	t.Parallel()
	none, err := web.LoadTokens("")
	if err != nil {
		t.Fatal(err)
	}
	some, err := web.LoadTokens(webtest.File(t, "ada 0123456789abcdef\n"))
	if err != nil {
		t.Fatal(err)
	}
	for addr, ok := range map[string]bool{
		"127.0.0.1:0": true, "localhost:0": true, "[::1]:0": true, "127.9.9.9:0": true, ":0": false,
		"0.0.0.0:0": false, "[::]:0": false, "10.0.0.1:0": false, "host:0": false,
	} {
		l, err := none.Listen(addr)
		if refused := err != nil && strings.Contains(err.Error(), "loopback"); refused == ok {
			t.Errorf("%s: %v", addr, err)
		}
		if err == nil {
			_ = l.Close()
		}
	}
	l, err := some.Listen("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	for _, bad := range []string{"", "x", "127.0.0.1", "127.0.0.1:x"} {
		if l, err := some.Listen(bad); err == nil {
			_ = l.Close()
			t.Errorf("Listen accepts the address %q", bad)
		}
	}
}

// plain is a service without handlers or tables of its own.
func plain(database string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /client", func(w http.ResponseWriter, r *http.Request) {
		_ = web.Write(w, http.StatusOK, web.ClientOf(r.Context()))
	})
	config := webtest.Config(database, log)
	config.Name = "plain"
	service, err := quadrille.New(config)
	return webtest.Must(service, mux, err)
}

func TestHealthMetricsAndAdminRoutes(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef"
	s := webtest.On(t, webtest.Database(t, plain), plain, webtest.File(t, "ada "+token+" admin\n"))
	s.Want(s.Call("GET", "/healthz", ""), http.StatusOK, "alive")
	s.Want(s.Call("GET", "/readyz", ""), http.StatusOK, `"status":"ready"`, `"database":"ok"`,
		"topology is not applied")
	if a := s.Call("GET", "/readyz?full=1", ""); a.Status != http.StatusServiceUnavailable ||
		!strings.Contains(a.Body, "not ready") {
		t.Errorf("full: %+v", a)
	}
	metrics := s.Call("GET", "/metrics", "")
	for _, line := range []string{
		"quadrille_outbox_published_total 0", "quadrille_consumer_batches_total 0",
		`quadrille_events_processed_total{result="parked",type="other"} 0`,
		`quadrille_outbox_held_events{kind="refused"} 0`, "quadrille_malformed_dropped_total 0",
		"quadrille_database_up 1", "quadrille_broker_connected 0", "quadrille_consuming 0",
		"go_goroutines ", "process_cpu_seconds_total ",
		`quadrille_http_request_seconds_count{method="GET",route="/healthz",status="2xx"} 1`,
		`quadrille_http_request_seconds_count{method="GET",route="/readyz",status="5xx"} 1`,
	} {
		if metrics.Status != http.StatusOK || !strings.Contains(metrics.Body, "\n"+line) {
			t.Errorf("%s is not in %d %s", line, metrics.Status, metrics.Body)
		}
	}
	for _, path := range []string{"/client", "/admin/parked", "/nothing"} {
		s.Want(s.Call("GET", path, ""), http.StatusUnauthorized)
	}
	s.Want(s.Call("GET", "/client", "", "Authorization", "Bearer "+token), http.StatusOK, `"ada"`)
	s.Want(s.Call("GET", "/admin/parked", "", "Authorization", "Bearer "+token), http.StatusOK,
		`"parked":[]`)
	s.Want(s.Call("GET", "/nothing", "", "Authorization", "Bearer "+token), http.StatusNotFound)
	if a := s.Want(s.Call("POST", "/client", "", "Authorization", "Bearer "+token),
		http.StatusMethodNotAllowed); a.Header.Get("Allow") == "" {
		t.Error("405 without Allow")
	}
}

// A shutdown waits for the request in progress.
func TestServeFinishesRequestsInProgress(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	entered, leave, served := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		served <- web.Serve(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-leave
			_, _ = w.Write([]byte("done"))
		}), zerolog.Nop())
	}()
	client := &webtest.Service{TB: t, URL: "http://" + listener.Addr().String()}
	answered := make(chan webtest.Answer, 1)
	go func() {
		a, _ := client.Try(context.Background(), "GET", "/", "")
		answered <- a
	}()
	<-entered
	stop()
	quadrilletest.WaitFor(t, "no more connections are accepted", func() (bool, string) {
		c, err := net.DialTimeout("tcp", listener.Addr().String(), time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err != nil, "the server still listens"
	})
	close(leave)
	if a := <-answered; a.Status != http.StatusOK || a.Body != "done" {
		t.Errorf("the request in progress was answered %+v", a)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
