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
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/internal/outside"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/resilience"
)

// The minimum values of settings. A smaller value is more likely a wrong unit than an intention.
const (
	minKeep = time.Minute
	minOpen = 100 * time.Millisecond
)

// healthTimeout is longer than the time-out of the probes of /readyz.
const healthTimeout = 5 * time.Second

// Config is the configuration of a service, read from its environment. For the service orders the
// variables are QUADRILLE_ORDERS_DATABASE_URL, QUADRILLE_ORDERS_AMQP_URL and QUADRILLE_ORDERS_URL
// (the address of its API). Optional variables are QUADRILLE_ORDERS_LISTEN (another address to
// listen on), QUADRILLE_TOKENS_FILE, QUADRILLE_LOG_LEVEL and QUADRILLE_OUTBOX_KEEP,
// QUADRILLE_INBOX_KEEP and QUADRILLE_IDEMPOTENCY_KEEP (how long published events, receipts and
// answers stay in the database). A variable with the suffix _FILE names a file that contains the
// value.
type Config struct {
	Database string
	AMQP     string
	Listen   string
	Tokens   string
	Log      zerolog.Logger

	leader   string // another address of the database
	keep     time.Duration
	receipts time.Duration
	keys     time.Duration // of idempotency
	lookup   func(string) (string, bool)
	errs     []error
}

// Build creates a service and its API from its configuration.
type Build func(c *Config) (*quadrille.Service, http.Handler, error)

// Main runs a service until SIGINT or SIGTERM and returns the exit code. With the argument
// healthcheck it requests /readyz of the service that runs in the same environment, and returns 0
// if that is ready.
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
		"%q: unknown arguments: the only argument is healthcheck, and settings come from the environment",
		args)
}

// healthcheck requests /readyz. It is part of the program because its container image contains no
// other program that could.
func healthcheck(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	// A connection to 0.0.0.0 reaches this machine.
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
	service, api, err := build(c)
	if faults := errors.Join(c.errs...); faults != nil {
		return faults
	}
	if err != nil {
		return c.misconfigured(name, err)
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
	group.Go(func() error { return web.Serve(ctx, listener, web.Mux(service, tokens, api), c.Log) })
	err = group.Wait()
	err = c.misconfigured(name, err)
	_ = service.Close()
	c.Log.Info().Err(err).Msg("stopped")
	return err
}

// misconfigured names the settings that an error of the configuration is about.
func (c *Config) misconfigured(name string, err error) error {
	if errors.Is(err, quadrille.ErrMisconfigured) {
		return fmt.Errorf("%sDATABASE_URL or _AMQP_URL: %w", prefixOf(name), err)
	}
	return err
}

func read(name string, lookup func(string) (string, bool)) *Config {
	c := &Config{lookup: lookup}
	prefix := prefixOf(name)
	c.Database = c.Require(prefix + "DATABASE_URL")
	c.AMQP = c.Require(prefix + "AMQP_URL")
	c.leader = c.String(prefix+"LEADER_DATABASE_URL", "")
	c.keep = c.Duration("QUADRILLE_OUTBOX_KEEP", outbox.DefaultKeep, minKeep)
	c.receipts = c.Duration("QUADRILLE_INBOX_KEEP", consumer.DefaultReceiptHistory, minKeep)
	c.keys = c.Duration("QUADRILLE_IDEMPOTENCY_KEEP", idempotency.DefaultKeep, minKeep)
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

// level returns the log level of a setting.
func (c *Config) level(name string) zerolog.Level {
	levels := []string{"trace", "debug", "info", "warn", "error", "fatal", "panic", "disabled"}
	value := c.String(name, "info")
	level, err := zerolog.ParseLevel(value)
	if err != nil || !slices.Contains(levels, value) {
		c.errs = append(c.errs, fmt.Errorf("%s: %.40q is not a log level: use one of %s", name, value,
			strings.Join(levels, ", ")))
		return zerolog.InfoLevel
	}
	return level
}

func prefixOf(name string) string { return prefix + strings.ToUpper(name) + "_" }

// String returns a setting from the environment, or from the file that its _FILE variable names.
func (c *Config) String(name, fallback string) string {
	if value, ok := c.lookup(name); ok && value != "" {
		return value
	}
	path, ok := c.lookup(name + "_FILE")
	if !ok || path == "" {
		return fallback
	}
	content, err := os.ReadFile(path)
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("%s_FILE: %w", name, err))
	}
	value := strings.TrimSpace(string(content))
	if err == nil && value == "" {
		c.errs = append(c.errs, fmt.Errorf("%s_FILE: the file %s is empty", name, path))
	}
	return value
}

// Require is String for a required setting.
func (c *Config) Require(name string) string {
	value := c.String(name, "")
	if value == "" {
		c.errs = append(c.errs, fmt.Errorf("%s is not set: set it or %s_FILE", name, name))
	}
	return value
}

// hostOf returns the host and port of the address of the API.
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

// maxDuration is the maximum of a duration in a setting.
const maxDuration = 10 * 365 * 24 * time.Hour

// Duration returns a setting such as "15m", which must be at least minimum.
func (c *Config) Duration(name string, fallback, minimum time.Duration) time.Duration {
	value := c.String(name, fallback.String())
	d, err := time.ParseDuration(value)
	if err != nil || d < minimum || d > maxDuration {
		c.errs = append(c.errs, fmt.Errorf("%s: %.40q is not a duration such as 15m between %s and %s",
			name, value, minimum, maxDuration))
	}
	return d
}

// Peer returns the outside peer at the address of a setting, or nil if it is not set. Its breaker
// stays open for QUADRILLE_BREAKER_OPEN.
func (c *Config) Peer(name, setting string) *outside.Peer {
	address := c.String(setting, "")
	if u, err := url.Parse(address); address != "" && (err != nil || u.Scheme != "http" &&
		u.Scheme != "https" || u.Host == "") {
		c.errs = append(c.errs, fmt.Errorf("%s: want an address such as http://127.0.0.1:7709", setting))
	}
	return outside.New(name, address, c.Duration("QUADRILLE_BREAKER_OPEN", resilience.DefaultOpen,
		minOpen), c.Log)
}

// List returns a setting that is a list of words, separated by commas.
func (c *Config) List(name string, fallback []string) []string {
	value := c.String(name, "")
	if value == "" {
		return fallback
	}
	var list []string
	for word := range strings.SplitSeq(value, ",") {
		if word = strings.TrimSpace(word); word != "" {
			list = append(list, word)
		}
	}
	if len(list) == 0 {
		c.errs = append(c.errs, fmt.Errorf("%s: %.40q is an empty list; remove the setting to use %s",
			name, value,
			strings.Join(fallback, ",")))
	}
	return list
}

// Countries is List for country codes of ISO 3166-1 alpha-2.
func (c *Config) Countries(name string, fallback []string) []string {
	list := c.List(name, fallback)
	for _, code := range list {
		if len(code) != 2 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			c.errs = append(c.errs,
				fmt.Errorf("%s: %.16q is not a country code of two capital letters, such as DE", name, code))
		}
	}
	return list
}
