package system_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/demo"
)

// The sizes of the normal run and of the long run (QUADRILLE_SOAK=1).
const (
	ordinaryOrders = 500
	soakOrders     = 10_000
	ordersPerSec   = 20 // slow enough that the faults happen during the load
	clients        = 8
	settleTimeout  = 5 * time.Minute
	// The load is stuck after loadTimeout times its expected duration plus backTimeout, which the
	// servers need to come back.
	loadTimeout = 4
	backTimeout = 5 * time.Minute
)

// TestChaos fulfils orders with a mix of outcomes on two replicas of each service, while processes
// are killed and restarted at random, the broker is restarted once, PostgreSQL is killed once, and
// the outside world fails, hangs and answers late. Afterwards every order has ended, all four
// services agree, money and stock add up, every published event was handled by every subscriber,
// and nothing is parked. The journal of the simulators has one charge and one booking for each
// confirmed order, and none that was not undone for any other.
func TestChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	orders := ordinaryOrders
	if os.Getenv("QUADRILLE_SOAK") != "" {
		orders = soakOrders
	}
	s := &demo.Stack{Root: root(t), Name: "chaos", Replicas: 2, Log: t.Logf,
		Settings: []string{"QUADRILLE_BREAKER_OPEN=2s"}}
	expected := time.Duration(orders/ordersPerSec) * time.Second
	startEmpty(t, s)
	w := newChaosRun(t, s, seed)
	w.stockUp(t.Context())
	// This time limit is for the load only. The steps before and after it have their own.
	ctx, cancel := context.WithTimeoutCause(t.Context(), loadTimeout*expected+backTimeout,
		errors.New("the load is stuck"))
	defer cancel()

	placed := w.load(ctx, orders)
	w.faults(ctx, placed, expected)
	if t.Failed() {
		cancel()
		<-placed
		t.Fatalf("the load failed after the faults %v: %v", w.done, context.Cause(ctx))
	}
	if err := s.Up(t.Context()); err != nil { // starts killed processes and waits until all are ready
		t.Fatal(err)
	}
	t.Logf("faults: %v", w.done)
	w.awaitRest(t.Context(), settleTimeout)
	w.check(t.Context())
}
