package outbox_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/quadrille-go/quadrille/internal/devstack/leaks"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // they mostly wait for servers
	// The servers are asked over HTTP, whose idle connections are not ours.
	goleak.VerifyTestMain(m, leaks.Known()...)
}
