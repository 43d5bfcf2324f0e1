package consumer_test

import (
	"testing"

	"github.com/quadrille-go/quadrille/consumer/internal/bank"
)

func TestMain(m *testing.M) { bank.Main(m) }
