package web

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
)

// anonymous is the one client when no tokens are configured.
const anonymous = "anonymous"

// minToken is the shortest token that is accepted, in characters.
const minToken = 16

// roleAdmin is the one role that there is.
const roleAdmin = "admin"

// client is an application that asks, and acts for all customers that it names.
type client struct {
	name  string
	admin bool // it may look into the service, and ask about what belongs to all customers
}

// Tokens names the client of a bearer token. With none configured everybody is one client, who is
// an admin, and only a loopback address may be served.
type Tokens struct{ clients map[[sha256.Size]byte]client }

// LoadTokens reads a file with a line "client token" for each client, and "client token admin" for
// one that is an admin; an empty path means none.
func LoadTokens(path string) (*Tokens, error) {
	t := &Tokens{clients: map[[sha256.Size]byte]client{}}
	if path == "" {
		return t, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		_, bad := hidden(strings.Join(fields, " "))
		if len(fields) < 2 || len(fields) > 3 || len(fields[1]) < minToken || bad {
			return nil, fmt.Errorf("tokens: line %d of %s is not \"client token\" or \"client token %s\" "+
				"with a token of %d characters or more",
				n, path, roleAdmin, minToken)
		}
		if len(fields) == 3 && fields[2] != roleAdmin {
			return nil,
				fmt.Errorf("tokens: line %d of %s has a role that is not %s, the only one that there is", n,
					path, roleAdmin)
		}
		token := sha256.Sum256([]byte(fields[1]))
		if _, twice := t.clients[token]; twice {
			return nil,
				fmt.Errorf("tokens: line %d of %s has the token of another line: who uses it is not known", n,
					path)
		}
		t.clients[token] = client{name: fields[0], admin: len(fields) == 3}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	if len(t.clients) == 0 {
		return nil, fmt.Errorf("tokens: %s names no client", path)
	}
	return t, nil
}

func (t *Tokens) configured() bool { return len(t.clients) > 0 }

// Listen listens on addr. Without tokens it refuses an address that others can reach.
func (t *Tokens) Listen(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if !Loopback(host) && !t.configured() {
		return nil, errors.New("listen: without tokens only a loopback address is served; configure a " +
			"tokens file, or listen on 127.0.0.1")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

type clientKey struct{}

// ClientOf returns the name of the client whose request this is.
func ClientOf(ctx context.Context) string {
	requests, _ := ctx.Value(clientKey{}).(client)
	return requests.name
}

// isAdmin tells whether the client whose request this is has the role.
func isAdmin(ctx context.Context) bool {
	requests, _ := ctx.Value(clientKey{}).(client)
	return requests.admin
}

// RequireAdmin is the problem of a client that is not an admin, nil for one that is.
func RequireAdmin(ctx context.Context) error {
	if isAdmin(ctx) {
		return nil
	}
	return Problemf(http.StatusForbidden, "%.64q is not an admin: its line in the tokens file must "+
		"be \"client token %s\"", ClientOf(ctx), roleAdmin)
}

// ForAdmin is a handler of what belongs to all customers, or is for a person who repairs something.
func ForAdmin(h Handler) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := RequireAdmin(r.Context()); err != nil {
			return err
		}
		return h(w, r)
	}
}

// Require lets only known clients through.
func (t *Tokens) Require(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests := client{name: anonymous, admin: true}
		if t.configured() {
			scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			// Looking up the hash takes the same time however much of the token is right.
			known, ok := t.clients[sha256.Sum256([]byte(token))]
			if !ok || !strings.EqualFold(scheme, "Bearer") {
				w.Header().Set("WWW-Authenticate", "Bearer")
				WriteProblem(w, Problemf(http.StatusUnauthorized, "a bearer token is required"))
				return
			}
			requests = known
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), clientKey{}, requests)))
	})
}

// RequireAdmin lets only admins through.
func (t *Tokens) RequireAdmin(h http.Handler) http.Handler {
	return t.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := RequireAdmin(r.Context()); err != nil {
			WriteProblem(w, problemOf(err))
			return
		}
		h.ServeHTTP(w, r)
	}))
}
