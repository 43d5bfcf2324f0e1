// Package boot starts one of the four services: configuration from the environment, logs, HTTP, and
// a graceful end.
//
// It promises that a wrong setting ends the program at once with a line that names it, and that
// a database or a broker that is away does not.
package boot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/outside"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/cdc"
	"github.com/quadrille-go/quadrille/resilience"
)

// The least that a setting may be: below, a mistake of the unit is likelier than an intention.
const (
	leastKeep = time.Minute
	leastOpen = 100 * time.Millisecond
)

// healthTimeout is above the time that /readyz gives its own probes.
const healthTimeout = 5 * time.Second

// Config is what a service is told by its environment. For the service orders the variables are
// QUADRILLE_ORDERS_DATABASE_URL, QUADRILLE_ORDERS_AMQP_URL, QUADRILLE_ORDERS_URL (the address at
// which it serves), and optionally QUADRILLE_ORDERS_LISTEN (another address to listen on),
// QUADRILLE_TOKENS_FILE, QUADRILLE_LOG_LEVEL and QUADRILLE_OUTBOX_KEEP (how long what was published
// stays in the outbox). A variable with _FILE behind its name names a file
// that holds the value.
type Config struct {
	Database string
	AMQP     string
	Listen   string
	Tokens   string
	Log      zerolog.Logger

	lookup func(string) (string, bool)
	errs   []error
}

// Build makes a service of its configuration.
type Build func(c *Config) (*quadrille.Service, http.Handler)

// Main runs a service until SIGINT or SIGTERM and returns the exit code. With the argument
// healthcheck it asks the service that already runs in this environment, and returns 0 if it is
// ready.
func Main(name string, build Build) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	zerolog.TimeFieldFormat = time.RFC3339Nano // of the whole program: only main may say so
	strange, err := Misspelt(os.Environ(), name)
	if len(strange) > 0 {
		fmt.Fprintf(os.Stderr, "%s: ignored, since they are no settings of this release: %s\n", name,
			strings.Join(strange, ", "))
	}
	if err == nil {
		err = command(ctx, name, os.Args[1:], os.LookupEnv, build)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

func command(ctx context.Context, name string, args []string, lookup func(string) (string, bool),
	build Build) error {
	switch {
	case len(args) == 0:
		return run(ctx, name, lookup, build)
	case len(args) == 1 && args[0] == "healthcheck":
		return healthcheck(ctx, read(name, lookup).Listen)
	}
	return fmt.Errorf(
		"%q: the only argument there is is healthcheck; settings come from the environment", args)
}

// healthcheck asks /readyz. It is in the program because a container's image with nothing but the
// program in it has nothing else to ask with.
func healthcheck(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	// To a dialler 0.0.0.0 is this machine.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("check health: /readyz answers %s", response.Status)
	}
	return nil
}

func run(ctx context.Context, name string, lookup func(string) (string, bool), build Build) error {
	c := read(name, lookup)
	service, api := build(c)
	service.Keep = c.Duration("QUADRILLE_OUTBOX_KEEP", outbox.DefaultKeep, leastKeep)
	if leader := c.String(prefixOf(name)+"LEADER_DATABASE_URL", ""); leader != "" {
		service.LeaderDatabase, service.Stream = leader, cdc.For(leader, c.Log)
	}
	if err := errors.Join(c.errs...); err != nil {
		return err
	}
	tokens, err := web.LoadTokens(c.Tokens)
	if err != nil {
		return fmt.Errorf("QUADRILLE_TOKENS_FILE: %w", err)
	}
	listener, err := tokens.Listen(c.Listen)
	if err != nil {
		return fmt.Errorf("%sLISTEN or _URL: %w", prefixOf(name), err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return service.Run(ctx) })
	group.Go(func() error { return web.Serve(ctx, listener, web.Mux(service, tokens, api), c.Log) })
	err = group.Wait()
	if errors.Is(err, quadrille.ErrMisconfigured) {
		err = fmt.Errorf("%sDATABASE_URL or _AMQP_URL: %w", prefixOf(name), err)
	}
	_ = service.Close()
	c.Log.Info().Err(err).Msg("stopped")
	return err
}

func read(name string, lookup func(string) (string, bool)) *Config {
	c := &Config{lookup: lookup}
	prefix := prefixOf(name)
	c.Database = c.Require(prefix + "DATABASE_URL")
	c.AMQP = c.Require(prefix + "AMQP_URL")
	c.Listen = c.String(prefix+"LISTEN", "")
	if c.Listen == "" {
		if address := c.Require(prefix + "URL"); address != "" {
			c.Listen = c.hostOf(prefix+"URL", address)
		}
	}
	c.Tokens = c.String("QUADRILLE_TOKENS_FILE", "")
	level := c.level("QUADRILLE_LOG_LEVEL")
	c.Log = zerolog.New(os.Stderr).Level(level).With().Timestamp().Str("service", name).Logger()
	return c
}

// level returns the level of the log.
func (c *Config) level(name string) zerolog.Level {
	levels := []string{"trace", "debug", "info", "warn", "error", "fatal", "panic", "disabled"}
	value := c.String(name, "info")
	level, err := zerolog.ParseLevel(value)
	if err != nil || !slices.Contains(levels, value) {
		c.errs = append(c.errs, fmt.Errorf("%s: %.40q is no level: use one of %s", name, value,
			strings.Join(levels, ", ")))
		return zerolog.InfoLevel
	}
	return level
}

func prefixOf(name string) string { return prefix + strings.ToUpper(name) + "_" }

// String returns a setting, from the environment or from the file that it names.
func (c *Config) String(name, otherwise string) string {
	if value, ok := c.lookup(name); ok && value != "" {
		return value
	}
	path, ok := c.lookup(name + "_FILE")
	if !ok || path == "" {
		return otherwise
	}
	content, err := os.ReadFile(path)
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("%s_FILE: %w", name, err))
	}
	value := strings.TrimSpace(string(content))
	if err == nil && value == "" {
		c.errs = append(c.errs, fmt.Errorf("%s_FILE: %s is empty", name, path))
	}
	return value
}

// Require is String for a setting without which the service cannot run.
func (c *Config) Require(name string) string {
	value := c.String(name, "")
	if value == "" {
		c.errs = append(c.errs, fmt.Errorf("%s is not set (or %s_FILE)", name, name))
	}
	return value
}

// hostOf returns host and port of the address at which the service serves.
func (c *Config) hostOf(name, address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" ||
		strings.Trim(u.Path, "/") != "" {
		c.errs = append(c.errs, fmt.Errorf("%s: want an address with its port and without a path, such "+
			"as http://127.0.0.1:7701", name))
		return ""
	}
	return u.Host
}

// longest is the longest duration that a setting may have.
const longest = 10 * 365 * 24 * time.Hour

// Duration returns a setting such as "15m", which must be at least least.
func (c *Config) Duration(name string, otherwise, least time.Duration) time.Duration {
	value := c.String(name, otherwise.String())
	d, err := time.ParseDuration(value)
	if err != nil || d < least || d > longest {
		c.errs = append(c.errs, fmt.Errorf("%s: %.40q is not a duration such as 15m between %s and %s",
			name, value, least, longest))
	}
	return d
}

// Peer returns the outside world at the address that a setting gives, nil for none. All breakers
// stay open for QUADRILLE_BREAKER_OPEN.
func (c *Config) Peer(name, setting string) *outside.Peer {
	address := c.String(setting, "")
	if u, err := url.Parse(address); address != "" && (err != nil || u.Scheme != "http" &&
		u.Scheme != "https" || u.Host == "") {
		c.errs = append(c.errs, fmt.Errorf("%s: want an address such as http://127.0.0.1:7709", setting))
	}
	return outside.New(name, address, c.Duration("QUADRILLE_BREAKER_OPEN", resilience.DefaultOpen,
		leastOpen), c.Log)
}

// List returns a setting of words with commas between them.
func (c *Config) List(name string, otherwise []string) []string {
	value := c.String(name, "")
	if value == "" {
		return otherwise
	}
	var list []string
	for word := range strings.SplitSeq(value, ",") {
		if word = strings.TrimSpace(word); word != "" {
			list = append(list, word)
		}
	}
	if len(list) == 0 {
		c.errs = append(c.errs, fmt.Errorf("%s: %.40q names nothing; leave it out for %s", name, value,
			strings.Join(otherwise, ",")))
	}
	return list
}

// Countries returns a List of countries by their codes of ISO 3166-1 alpha-2.
func (c *Config) Countries(name string, otherwise []string) []string {
	list := c.List(name, otherwise)
	for _, code := range list {
		if len(code) != 2 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			c.errs = append(c.errs,
				fmt.Errorf("%s: %.16q is not a country's code of two capitals, such as DE", name, code))
		}
	}
	return list
}
