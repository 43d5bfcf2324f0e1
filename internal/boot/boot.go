// Package boot starts one of the four services: it reads the configuration from the environment,
// sets up logs and HTTP, and shuts down gracefully.
//
// It promises that a wrong setting ends the program at once with a line that names it, and that an
// unavailable database or broker does not.
package boot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/logfields"
	"github.com/quadrille-go/quadrille/internal/telemetry"
	"github.com/quadrille-go/quadrille/internal/web"
)

// healthTimeout is longer than the time-out of the probes of /readyz.
const healthTimeout = 5 * time.Second

// Config is the configuration of a service, read from its environment; see the list of settings.
// The variables of OpenTelemetry are described in package telemetry.
type Config struct {
	Database string
	AMQP     string
	Listen   string
	Tokens   string
	Log      zerolog.Logger

	name     string // of the service
	migrate  string
	requests int // of the API that are handled at the same time
	traces   *telemetry.Traces
	leader   string // another address of the database
	keep     time.Duration
	receipts time.Duration
	keys     time.Duration // of idempotency
	lookup   func(string) (string, bool)
	errs     []error
}

// Build creates a service and its API from its configuration.
type Build func(c *Config) (*quadrille.Service, http.Handler, error)

// Main runs a service until SIGINT or SIGTERM, or does what the arguments say (see usage), and
// returns the exit code.
func Main(name string, build Build) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	zerolog.TimeFieldFormat = time.RFC3339Nano // a global setting, so only main may change it
	unknown, err := Misspelt(os.Environ(), name)
	if len(unknown) > 0 {
		fmt.Fprintf(os.Stderr, "%s: ignored, because this release has no such settings: %s\n", name,
			strings.Join(unknown, ", "))
	}
	if err == nil {
		err = command(ctx, name, os.Args[1:], os.LookupEnv, build, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		if errors.Is(err, errPending) {
			return 5 // as the checks of the command line
		}
		return 1
	}
	return 0
}

func run(ctx context.Context, name string, lookup func(string) (string, bool), build Build) error {
	c := read(name, lookup)
	var err error
	if c.traces, err = telemetry.Start(ctx, name, lookup, c.Log); err != nil {
		c.errs = append(c.errs, err)
	}
	defer c.traces.Stop()
	service, api, err := build(c)
	if faults := errors.Join(c.errs...); faults != nil {
		return faults
	}
	if err != nil {
		return c.misconfigured(err)
	}
	tokens, err := web.LoadTokens(c.Tokens)
	if err != nil {
		return fmt.Errorf("QUADRILLE_TOKENS_FILE: %w", err)
	}
	listener, err := c.listen(tokens, c.Listen)
	if err != nil {
		return fmt.Errorf("%sLISTEN or _URL: %w", prefixOf(name), err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return service.Run(ctx) })
	group.Go(func() error {
		mux := web.Mux(service, tokens, api, c.requests)
		return web.Serve(ctx, listener, c.traces.Handler(mux), c.Log)
	})
	err = group.Wait()
	err = c.misconfigured(err)
	_ = service.Close()
	c.Log.Info().Err(err).Msg("stopped")
	return err
}

func read(name string, lookup func(string) (string, bool)) *Config {
	c := &Config{name: name, lookup: lookup}
	prefix := prefixOf(name)
	c.Database = c.Require(prefix + "DATABASE_URL")
	c.AMQP = c.Require(prefix + "AMQP_URL")
	c.leader = c.String(prefix + "LEADER_DATABASE_URL")
	c.migrate = c.choice("QUADRILLE_MIGRATE", "auto", "check", "off")
	c.requests = c.number("QUADRILLE_HTTP_CONCURRENCY", maxRequests)
	c.keep = c.Duration("QUADRILLE_OUTBOX_KEEP")
	c.receipts = c.Duration("QUADRILLE_INBOX_KEEP")
	c.keys = c.Duration("QUADRILLE_IDEMPOTENCY_KEEP")
	c.Listen = c.String(prefix + "LISTEN")
	if c.Listen == "" {
		if address := c.Require(prefix + "URL"); address != "" {
			c.Listen = c.hostOf(prefix+"URL", address)
		}
	}
	c.Tokens = c.String("QUADRILLE_TOKENS_FILE")
	level := c.level("QUADRILLE_LOG_LEVEL")
	c.Log = logfields.Named(zerolog.New(os.Stderr).Level(level).With().Timestamp().Logger(), name)
	return c
}

func prefixOf(name string) string { return prefix + strings.ToUpper(name) + "_" }
