package resilience_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/resilience"
)

// If the breakers of all replicas are open, one replica at a time probes the peer.
func TestOneReplicaProbesAtATime(t *testing.T) {
	t.Parallel()
	url := servertest.Database(t, "leaders", func(ctx context.Context, url string) error {
		return pg.Migrate(ctx, url, "resilience", resilience.Migrations())
	})
	var guards []resilience.Guard
	for range 3 {
		leader := pg.Leader{DB: pool(t, url), Name: "breaker peer"}
		b := &resilience.Breaker{Name: "peer", Failures: 1, Open: 50 * time.Millisecond,
			Probe: func(ctx context.Context) (func(), bool) {
				lead, err := leader.Try(ctx)
				if err != nil || lead == nil {
					return nil, false
				}
				return lead.Release, true
			}}
		guards = append(guards, b.Guard())
	}
	down := errors.New("down")
	for _, guard := range guards {
		if err := guard(t.Context(), func(context.Context) error { return down }); !errors.Is(err, down) {
			t.Fatal(err)
		}
	}
	entered, release, done := make(chan bool), make(chan bool), make(chan error)
	go func() {
		done <- untilMade(guards[0], func(context.Context) error {
			entered <- true
			<-release
			return nil
		})
	}()
	<-entered
	for n := range 10 { // while the first replica probes
		for _, guard := range guards[1:] {
			err := guard(t.Context(), func(context.Context) error {
				t.Error("another replica probes at the same time")
				return nil
			})
			if _, refused := notMade(err); !refused {
				t.Errorf("round %d: %v", n, err)
			}
		}
		<-time.After(20 * time.Millisecond) // past the end of Open
	}
	release <- true
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, guard := range guards[1:] { // now the others may probe, one after the other
		if err := untilMade(guard, func(context.Context) error { return nil }); err != nil {
			t.Error(err)
		}
	}
}

// untilMade retries a call until it is made.
func untilMade(guard resilience.Guard, call func(context.Context) error) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		err := guard(context.Background(), call)
		after, refused := notMade(err)
		if !refused || time.Now().After(deadline) {
			return err
		}
		<-time.After(min(after, 50*time.Millisecond))
	}
}
