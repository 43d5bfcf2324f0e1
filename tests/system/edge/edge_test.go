// Package edge_test checks on every route of every service the rules that hold for all routes.
package edge_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

const (
	clientToken = "0123456789abcdef"
	adminToken  = "fedcba9876543210"
)

func TestMain(m *testing.M) { webtest.Main(m) }

// services returns the four services, configured as in their programs.
func services() map[string]webtest.New {
	return map[string]webtest.New{
		"orders": func(database string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
			return webtest.Must(orders.New(webtest.Config(database, log), time.Hour))
		},
		"payments": func(database string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
			return webtest.Must(payments.New(webtest.Config(database, log), nil))
		},
		"inventory": func(database string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
			return webtest.Must(inventory.New(webtest.Config(database, log)))
		},
		"shipping": func(database string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
			return webtest.Must(shipping.New(webtest.Config(database, log), nil, shipping.Countries))
		},
	}
}

// route is a method and a path, such as GET /stock/{sku}.
type route struct{ method, path string }

var registered = regexp.MustCompile(`(?:mux\.Handle(?:Func)?|route)\("([A-Z]+) (/[^"]*)"`)

// routesOf reads the routes of a service from the source, so that a new route is always included.
func routesOf(t *testing.T, service string) []route {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	files, err := filepath.Glob(filepath.Join(root, "internal", "fulfilment", service, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	admin, frame := filepath.Join(root, "admin", "handler.go"),
		filepath.Join(root, "internal", "web", "server.go")
	var routes []route
	for _, file := range append(files, admin, frame) {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range registered.FindAllStringSubmatch(string(source), -1) {
			routes = append(routes, route{m[1], m[2]})
		}
	}
	if len(routes) < 17 {
		t.Fatalf("%s: only %d routes were found in the source: %v", service, len(routes), routes)
	}
	return routes
}

func (r route) String() string { return r.method + " " + r.path }

// with replaces the variables of the path with a segment.
func (r route) with(segment string) string {
	return regexp.MustCompile(`\{\w+\}`).ReplaceAllString(r.path, segment)
}

// public reports whether the route needs no token and reads no body.
func (r route) public() bool {
	return r.path == "/healthz" || r.path == "/readyz" || r.path == "/metrics"
}

// each runs a test for every service. tokens is the path of a tokens file, or empty.
func each(t *testing.T, tokens string, test func(t *testing.T, s *webtest.Service,
	routes []route)) {
	for name, service := range services() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := webtest.On(t, webtest.Database(t, service), service, tokens)
			test(t, s, routesOf(t, name))
		})
	}
}

// An invisible character is refused in the path, the parameters and the strings of the body. So are
// bytes that are not UTF-8, and parameters that cannot be parsed.
func TestHiddenCharactersAreRefusedOnEveryRoute(t *testing.T) {
	t.Parallel()
	each(t, "", func(t *testing.T, s *webtest.Service, routes []route) {
		key := func() string { return events.NewID() }
		for _, r := range routes {
			for _, bad := range []string{"\x00", "\x1b", "\u0085", "\u202e", "\u200b", "\u2028", "\u2066",
				"\ufeff", "\U000e0041", "\u3164", "\xff"} {
				escaped := url.PathEscape(bad)
				requests := map[string][2]string{"query": {r.with("x") + "?" + escaped + "=1", ""},
					"value": {r.with("x") + "?after=" + escaped, ""}}
				if strings.Contains(r.path, "{") {
					requests["path"] = [2]string{r.with("a" + escaped), ""}
				}
				if r.method != http.MethodGet && bad != "\xff" {
					requests["body"] = [2]string{r.with("x"), fmt.Sprintf(`{"a":{"b":["\u%04x"]}}`,
						[]rune(bad)[0])}
					requests["name"] = [2]string{r.with("x"), fmt.Sprintf(`{"a":{"b\u%04x":1}}`, []rune(bad)[0])}
				}
				if bad == "\U000e0041" {
					delete(requests, "body") // JSON needs two escapes for it
					delete(requests, "name")
				}
				for where, request := range requests {
					a := s.Call(r.method, request[0], request[1], "Idempotency-Key", key())
					if a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "the invisible character") ||
						strings.Contains(a.Body, bad) && bad != "\xff" {
						t.Errorf("%s with %q in the %s: %d %q", r, bad, where, a.Status, a.Body)
					}
				}
			}
			for _, query := range []string{"?a=%zz", "?a=1;b=2"} {
				if a := s.Call(r.method, r.with("x")+query, ""); a.Status != http.StatusBadRequest {
					t.Errorf("%s%s: %d %s", r, query, a.Status, a.Body)
				}
			}
		}
	})
}

// A browser on this machine may run a foreign page that sends requests: with a content type that
// needs no CORS preflight, from another origin, or under a host name of its own that resolves to
// this machine.
func TestForeignWebPagesAreRefusedOnEveryRoute(t *testing.T) {
	t.Parallel()
	each(t, "", func(t *testing.T, s *webtest.Service, routes []route) {
		port := s.URL[strings.LastIndex(s.URL, ":"):]
		for _, r := range routes {
			for _, host := range []string{"evil.example", "127.0.0.1.evil.example" + port,
				"localhost.evil.example", "0.0.0.0" + port, "10.0.0.1", "[::]" + port} {
				if a := s.Call(r.method, r.with("x"), "", "Host",
					host); a.Status != http.StatusMisdirectedRequest {
					t.Errorf("%s at %s: %d %s", r, host, a.Status, a.Body)
				}
			}
			for _, host := range []string{"localhost" + port, "[::1]" + port, "LOCALHOST", "127.0.0.1"} {
				if a := s.Call(r.method, r.with("x"), "", "Host",
					host); a.Status == http.StatusMisdirectedRequest {
					t.Errorf("%s at %s: %s", r, host, a.Body)
				}
			}
			if r.method == http.MethodGet {
				continue // it changes nothing, and a page of another origin cannot read the answer
			}
			for _, page := range [][]string{
				{"Origin", "http://evil.example"}, {"Origin", "null"}, {"Origin", "http://127.0.0.1:1"},
				{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
				{"Sec-Fetch-Site", "cross-site", "Origin", s.URL},
			} {
				if a := s.Call(r.method, r.with("x"), `{}`, page...); a.Status != http.StatusForbidden {
					t.Errorf("%s with %q: %d %s", r, page, a.Status, a.Body)
				}
			}
			for _, kind := range []string{
				"text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
				"text/plain; application/json",
				"application/json; charset=utf-16", "application/jsonp", "application/json, text/plain",
			} {
				if a := s.Call(r.method, r.with("x"), `{}`, "Content-Type",
					kind); a.Status != http.StatusUnsupportedMediaType {
					t.Errorf("%s with type %q: %d %s", r, kind, a.Status, a.Body)
				}
			}
		}
	})
}

// A client without the role admin may not use the admin endpoint or read data of all customers.
func TestOnlyAnAdminInspectsAService(t *testing.T) {
	t.Parallel()
	adminRoutes := map[string]bool{
		"GET /orders": true, "GET /accounts": true, "POST /accounts/{customer}/verification": true,
		"GET /verifications": true, "GET /payments": true,
		"POST /payments/{order}/refund": true, "GET /reservations": true, "GET /shipments": true,
		"POST /shipments/{order}/recall": true,
	}
	each(t, webtest.File(t, "client "+clientToken+"\nadmin "+adminToken+" admin\n"),
		func(t *testing.T, s *webtest.Service, routes []route) {
			for _, r := range routes {
				if r.public() {
					continue
				}
				admin := strings.HasPrefix(r.path, "/admin/") || adminRoutes[r.String()]
				for token, status := range map[string]int{"": http.StatusUnauthorized, adminToken +
					"x": http.StatusUnauthorized, clientToken: http.StatusForbidden, adminToken: 0} {
					a := s.Call(r.method, r.with("x"), "", "Authorization", "Bearer "+token)
					if want := status == a.Status; status == http.StatusUnauthorized && !want ||
						status == http.StatusForbidden && want != admin ||
						status == 0 && (a.Status == http.StatusForbidden || a.Status == http.StatusUnauthorized) {
						t.Errorf("%s with token %q: %d %s", r, token, a.Status, a.Body)
					}
				}
			}
		})
}

// A request whose body is incomplete is not answered with success, whether its client waits or has
// closed its sending side.
func TestUnfinishedRequestsAreNoSuccess(t *testing.T) {
	t.Parallel()
	each(t, "", func(t *testing.T, s *webtest.Service, routes []route) {
		for _, r := range routes {
			if r.public() {
				continue
			}
			for how, status := range map[string]string{"waits": " 408 ", "ends": " 400 "} {
				t.Run(fmt.Sprint(r.method, strings.ReplaceAll(r.path, "/", " "), " ", how), func(t *testing.T) {
					t.Parallel()
					line := unfinished(t, s.URL, r, how == "ends")
					if !strings.Contains(line, status) {
						t.Errorf("answer %q, want status%s", line, status)
					}
				})
			}
		}
	})
}

// unfinished sends one of a thousand bytes and returns the status line of the answer.
func unfinished(t *testing.T, address string, r route, ends bool) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(quadrilletest.Timeout))
	_, err = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: "+
		"application/json\r\nContent-Length: 1000\r\nIdempotency-Key: %s\r\n\r\n{",
		r.method, r.with(events.NewID()), events.NewID())
	if err == nil && ends {
		err = c.(*net.TCPConn).CloseWrite()
	}
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(bufio.NewReader(c)) // the service closes the connection
	if err != nil {
		t.Errorf("the connection stays open: %v", err)
	}
	line, _, _ := strings.Cut(string(answer), "\r\n")
	return line
}
