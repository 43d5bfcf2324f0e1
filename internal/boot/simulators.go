package boot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/quadrille-go/quadrille/internal/fulfilment/simulator"
	"github.com/quadrille-go/quadrille/internal/web"
)

// simulatorsListen is the default address of the simulators.
const simulatorsListen = "127.0.0.1:7709"

// Simulators runs the simulators of the outside world until SIGINT or SIGTERM and returns the exit
// code. With the argument healthcheck it checks the simulators that already run.
func Simulators() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	_, err := Misspelt(os.Environ())
	if err == nil {
		err = simulators(ctx, os.Args[1:], os.LookupEnv)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "simulators: %v\n", err)
		return 1
	}
	return 0
}

func simulators(ctx context.Context, args []string, lookup func(string) (string, bool)) error {
	c := &Config{lookup: lookup}
	listen := c.String("QUADRILLE_SIMULATORS_LISTEN")
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		c.errs = append(c.errs,
			fmt.Errorf("QUADRILLE_SIMULATORS_LISTEN: want an address and a port, such as %s",
				simulatorsListen))
	}
	if err := errors.Join(c.errs...); err != nil {
		return err
	}
	switch {
	case len(args) == 0:
		return c.serveSimulators(ctx, listen, web.Loopback(host))
	case len(args) == 1 && args[0] == "healthcheck":
		return healthcheck(ctx, listen)
	}
	return fmt.Errorf(
		"%q: unknown arguments: the only argument is healthcheck, and settings come from the environment",
		args)
}

func (c *Config) serveSimulators(ctx context.Context, listen string, local bool) error {
	listener, err := c.inherited(listen)
	if listener == nil && err == nil {
		listener, err = net.Listen("tcp", listen)
	}
	if err != nil {
		return fmt.Errorf("QUADRILLE_SIMULATORS_LISTEN: %w", err)
	}
	// There is no write time-out, because the simulators answer late or never on purpose.
	server := &http.Server{Handler: web.Guard(simulator.New().Handler(), !local),
		ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	fmt.Fprintf(os.Stderr, "simulators serve at http://%s\n", listen)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("QUADRILLE_SIMULATORS_LISTEN: %w", err)
	}
	return nil
}
