package outbox_test

import (
	"flag"
	"testing"

	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "24") // the tests mostly wait for servers
	leaks.Main(m)
}
