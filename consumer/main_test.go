package consumer_test

import (
	"testing"

	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
)

func TestMain(m *testing.M) { consumertest.Main(m) }
