package env

import (
	"testing"

	"github.com/quadrille-go/quadrille/quadrilletest"
)

// newProxy starts a proxy for a server and returns the URL that leads through it.
func newProxy(t testing.TB, server string) (*quadrilletest.Proxy, string) {
	t.Helper()
	p := quadrilletest.NewProxy(t, server)
	return p, p.URL
}
