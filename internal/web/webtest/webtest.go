// Package webtest runs a service over HTTP in a test, with its own database and without a broker,
// because the API must work without one.
package webtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/outbox"
)

// NoBroker is the URL of a broker that is away: no program listens on its port.
const NoBroker = "amqp://nobody:nothing@127.0.0.1:1/"

// NoDatabase is the address of a database that is away.
const NoDatabase = "postgres://nobody@127.0.0.1:1/none?sslmode=disable"

// Must returns a service and its API that were made without an error.
func Must(s *quadrille.Service, api http.Handler, err error) (*quadrille.Service, http.Handler) {
	if err != nil {
		panic(err)
	}
	return s, api
}

// Config is the configuration of a service on a database, with the broker away.
func Config(database string, log zerolog.Logger) quadrille.Config {
	return quadrille.Config{Database: database, AMQP: NoBroker, Log: log}
}

// New returns a service and its API for a database, as the New function of a service does.
type New func(database string, log zerolog.Logger) (*quadrille.Service, http.Handler)

// Service is a service whose API is served.
type Service struct {
	testing.TB
	Kit      *quadrille.Service
	URL      string
	Database string
	DB       *sqlx.DB // the service's own pool
}

// Start serves the API of a service on a new database.
func Start(t testing.TB, service New) *Service {
	t.Helper()
	return On(t, Database(t, service), service, "")
}

// On serves the API of a service on the given database. tokens is the path of a tokens file, or
// empty.
func On(t testing.TB, database string, service New, tokens string) *Service {
	t.Helper()
	s, api := service(database, zerolog.New(zerolog.NewTestWriter(t)))
	loaded, err := web.LoadTokens(tokens)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(web.Mux(s, loaded, api, web.Concurrency))
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Service{TB: t, Kit: s, URL: server.URL, Database: database, DB: db}
}

// Database returns the URL of a new database with the tables of a service.
func Database(t testing.TB, service New) string {
	t.Helper()
	s, _ := service(NoDatabase, zerolog.Nop())
	return servertest.Database(t, s.Name()+" "+hashOf(t, s),
		func(ctx context.Context, url string) error {
			s, _ := service(url, zerolog.Nop())
			if err := s.Open(ctx); err != nil {
				return err
			}
			return s.Close()
		})
}

// hashOf returns a hash of the migrations and projections, so that a template database is not used
// after a change of them.
func hashOf(t testing.TB, s *quadrille.Service) string {
	t.Helper()
	lines := []fs.FS{inbox.Migrations(), outbox.Migrations(), eventstore.Migrations()}
	for _, line := range slices.Sorted(maps.Keys(s.Config().Migrations)) {
		lines = append(lines, s.Config().Migrations[line])
	}
	sum := sha256.New()
	for _, c := range s.Config().Components {
		projector, ok := c.(*eventstore.Projector)
		if !ok {
			continue
		}
		for _, p := range projector.Projections {
			fmt.Fprintln(sum, p.Name, p.Version, p.Columns)
		}
	}
	for _, files := range lines {
		names, err := fs.Glob(files, "*.sql")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			data, err := fs.ReadFile(files, name)
			if err != nil {
				t.Fatal(err)
			}
			sum.Write(data)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Answer is an HTTP answer.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Call makes a request. headers are alternating names and values.
func (s *Service) Call(method, path, body string, headers ...string) Answer {
	s.Helper()
	answer, err := s.Try(s.Context(), method, path, body, headers...)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

// Try is Call for goroutines other than that of the test.
func (s *Service) Try(ctx context.Context, method, path, body string, headers ...string) (Answer,
	error) {
	request, err := http.NewRequestWithContext(ctx, method, s.URL+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		switch headers[i] {
		case "Host":
			request.Host = headers[i+1]
		case "Content-Type":
			request.Header.Set(headers[i], headers[i+1])
		default:
			request.Header.Add(headers[i], headers[i+1])
		}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	return Answer{Status: response.StatusCode, Header: response.Header, Body: string(data)}, err
}

// Post makes a request with a new Idempotency-Key.
func (s *Service) Post(path, body string) Answer {
	s.Helper()
	return s.Call(http.MethodPost, path, body, "Idempotency-Key", events.NewID())
}

// Want fails the test unless the answer has this status and its body contains these parts. An error
// status must come with problem details.
func (s *Service) Want(a Answer, status int, parts ...string) Answer {
	s.Helper()
	if a.Status != status {
		s.Fatalf("status %d, want %d: %s", a.Status, status, a.Body)
	}
	for _, part := range parts {
		if !strings.Contains(a.Body, part) {
			s.Errorf("%q is not in the answer %s", part, a.Body)
		}
	}
	kind := "application/json"
	if status >= http.StatusBadRequest {
		kind = "application/problem+json"
	}
	if got := a.Header.Get("Content-Type"); got != kind {
		s.Errorf("content type %q of status %d, want %q", got, status, kind)
	}
	return a
}

// Decode decodes the body of an answer.
func (s *Service) Decode(a Answer, into any) {
	s.Helper()
	if err := json.Unmarshal([]byte(a.Body), into); err != nil {
		s.Fatalf("answer %s: %v", a.Body, err)
	}
}

// Int returns the number that a query selects.
func (s *Service) Int(query string, args ...any) int64 {
	s.Helper()
	var n int64
	if err := s.DB.GetContext(s.Context(), &n, query, args...); err != nil {
		s.Fatalf("%s: %v", query, err)
	}
	return n
}

// File writes a temporary file and returns its path.
func File(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Main runs the tests of a package and fails if a goroutine is left running.
func Main(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // the tests wait for servers, not for the processor
	leaks.Main(m)
}
