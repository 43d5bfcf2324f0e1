package quadrilletest

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// Runner is what Run runs, such as a quadrille.Service.
type Runner interface {
	Run(ctx context.Context) error
}

// Run runs a service until stop is called, at the latest until the test ends. If the service ends
// before, or with an error, the test fails. stop waits until Run has returned, and may be called
// more than once.
func Run(t testing.TB, service Runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		err := service.Run(ctx)
		if err != nil || ctx.Err() == nil {
			t.Errorf("%s has ended before it was stopped, or with an error: %v", nameOf(service), err)
		}
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

func nameOf(service Runner) string {
	if named, ok := service.(interface{ Name() string }); ok {
		return "the service " + named.Name()
	}
	return fmt.Sprintf("the service (%T)", service)
}
