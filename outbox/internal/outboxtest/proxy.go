package outboxtest

import (
	"testing"

	"github.com/quadrille-go/quadrille/quadrilletest"
)

// The directions in which data passes the proxy between a relay and its broker.
const (
	ToBroker   = quadrilletest.ToServer
	FromBroker = quadrilletest.FromServer
)

// NewProxy starts a proxy in front of the broker of amqpURL.
func NewProxy(t testing.TB, amqpURL string) *quadrilletest.Proxy {
	t.Helper()
	return quadrilletest.NewProxy(t, amqpURL)
}
