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

	"github.com/quadrille-go/quadrille/admin"
)

// anonymous is the name of every client when no tokens are configured.
const anonymous = "anonymous"

// minToken is the minimum length of a token in bytes.
const minToken = 16

// roleAdmin is the only role.
const roleAdmin = "admin"

// client is an application that makes requests. It acts for every customer that it names.
type client struct {
	name  string
	admin bool // may use the admin endpoint and read data of all customers
}

// Tokens maps bearer tokens to clients. If none are configured, every request is from one client
// with the role admin, and only a loopback address may be served.
type Tokens struct{ clients map[[sha256.Size]byte]client }

// LoadTokens reads a file with a line "client token" for each client and "client token admin" for
// an admin. An empty path means no tokens.
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
		_, bad := invisible(strings.Join(fields, " "))
		if len(fields) < 2 || len(fields) > 3 || len(fields[1]) < minToken || bad {
			return nil, fmt.Errorf("tokens: line %d of %s is not \"client token\" or \"client token %s\" "+
				"with a token of %d characters or more",
				n, path, roleAdmin, minToken)
		}
		if len(fields) == 3 && fields[2] != roleAdmin {
			return nil,
				fmt.Errorf("tokens: line %d of %s has an unknown role: the only role is %s", n,
					path, roleAdmin)
		}
		token := sha256.Sum256([]byte(fields[1]))
		if _, twice := t.clients[token]; twice {
			return nil,
				fmt.Errorf("tokens: line %d of %s repeats the token of another line: give each client its own",
					n,
					path)
		}
		t.clients[token] = client{name: fields[0], admin: len(fields) == 3}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	if len(t.clients) == 0 {
		return nil, fmt.Errorf("tokens: %s names no client: add a line \"client token\"", path)
	}
	return t, nil
}

func (t *Tokens) configured() bool { return len(t.clients) > 0 }

// Allow refuses an address that other machines can reach, unless there are tokens.
func (t *Tokens) Allow(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if !Loopback(host) && !t.configured() {
		return errors.New("listen: without tokens only a loopback address is served; configure a " +
			"tokens file, or listen on 127.0.0.1")
	}
	return nil
}

// Listen listens on addr, which must be allowed.
func (t *Tokens) Listen(addr string) (net.Listener, error) {
	if err := t.Allow(addr); err != nil {
		return nil, err
	}
	return net.Listen("tcp", addr) // its errors begin with listen, too
}

type clientKey struct{}

// ClientOf returns the name of the client that made the request.
func ClientOf(ctx context.Context) string {
	c, _ := ctx.Value(clientKey{}).(client)
	return c.name
}

// isAdmin reports whether the client that made the request is an admin.
func isAdmin(ctx context.Context) bool {
	c, _ := ctx.Value(clientKey{}).(client)
	return c.admin
}

// RequireAdmin returns a Problem unless the client is an admin.
func RequireAdmin(ctx context.Context) error {
	if isAdmin(ctx) {
		return nil
	}
	return Problemf(http.StatusForbidden, "%.64q is not an admin: its line in the tokens file must "+
		"be \"client token %s\"", ClientOf(ctx), roleAdmin)
}

// ForAdmin restricts a handler to admins. It is for data of all customers and for repairs.
func ForAdmin(h Handler) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := RequireAdmin(r.Context()); err != nil {
			return err
		}
		return h(w, r)
	}
}

// Require answers 401 to requests without a known token and records the client in the context.
func (t *Tokens) Require(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := client{name: anonymous, admin: true}
		if t.configured() {
			scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			// Comparing hashes takes the same time regardless of how many characters of the token are right.
			known, ok := t.clients[sha256.Sum256([]byte(token))]
			if !ok || !strings.EqualFold(scheme, "Bearer") {
				w.Header().Set("WWW-Authenticate", "Bearer")
				WriteProblem(w, Problemf(http.StatusUnauthorized,
					"a bearer token of the tokens file is required"))
				return
			}
			c = known
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), clientKey{}, c)))
	})
}

// RequireAdmin is Require for admins only.
func (t *Tokens) RequireAdmin(h http.Handler) http.Handler {
	return t.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := RequireAdmin(r.Context()); err != nil {
			WriteProblem(w, problemOf(err))
			return
		}
		ctx := r.Context()
		if t.configured() { // otherwise everybody is anonymous, which says nothing
			ctx = admin.WithOperator(ctx, ClientOf(ctx))
		}
		h.ServeHTTP(w, r.WithContext(ctx))
	}))
}
