package boot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/quadrille-go/quadrille/internal/simulator"
)

// simulatorsListen is where the simulators serve unless they are told otherwise.
const simulatorsListen = "127.0.0.1:7709"

// Simulators runs the simulators of the outside world until SIGINT or SIGTERM and returns the exit code.
// With the argument healthcheck it asks those that run already.
func Simulators() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &Config{lookup: os.LookupEnv}
	listen := c.String("QUADRILLE_SIMULATORS_LISTEN", simulatorsListen)
	_, err := misspelt(os.Environ())
	err = errors.Join(append(c.errs, err)...)
	if err == nil && len(os.Args) == 2 && os.Args[1] == "healthcheck" {
		err = healthcheck(ctx, listen)
	} else if err == nil {
		err = serveSimulators(ctx, listen)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "simulators: %v\n", err)
		return 1
	}
	return 0
}

func serveSimulators(ctx context.Context, listen string) error {
	// No time-out for writing: to answer late, or never, is what they are for.
	server := &http.Server{Addr: listen, Handler: simulator.New().Handler(), ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	fmt.Fprintf(os.Stderr, "simulators serve at http://%s\n", listen)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
