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

// Tokens names the client of a bearer token. With none configured everybody is one client, and only
// a loopback address may be served.
type Tokens struct{ clients map[[sha256.Size]byte]string }

// LoadTokens reads a file with a line "client token" for each client; an empty path means none.
func LoadTokens(path string) (*Tokens, error) {
	t := &Tokens{clients: map[[sha256.Size]byte]string{}}
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
		if len(fields) != 2 || len(fields[1]) < minToken {
			return nil, fmt.Errorf("tokens: line %d of %s is not \"client token\" with a token of %d characters or more", n, path, minToken)
		}
		token := sha256.Sum256([]byte(fields[1]))
		if _, twice := t.clients[token]; twice {
			return nil, fmt.Errorf("tokens: line %d of %s has the token of another line: who uses it is not known", n, path)
		}
		t.clients[token] = fields[0]
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
	if !loopback(host) && !t.configured() {
		return nil, errors.New("listen: without tokens only a loopback address is served; configure a tokens file, or listen on 127.0.0.1")
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
	client, _ := ctx.Value(clientKey{}).(string)
	return client
}

// Require lets only known clients through.
func (t *Tokens) Require(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client := anonymous
		if t.configured() {
			scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			// Looking up the hash takes the same time whatever of the token is right.
			known, ok := t.clients[sha256.Sum256([]byte(token))]
			if !ok || !strings.EqualFold(scheme, "Bearer") {
				w.Header().Set("WWW-Authenticate", "Bearer")
				WriteProblem(w, Problemf(http.StatusUnauthorized, "a bearer token is required"))
				return
			}
			client = known
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), clientKey{}, client)))
	})
}
