package boot

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/resilience"
)

// prefix is the prefix of all settings.
const prefix = "QUADRILLE_"

// maxDistance is the maximum edit distance at which a name counts as a misspelt setting.
const maxDistance = 2

// maxRequests is the maximum of HTTP_CONCURRENCY: a larger number would be no bound.
const maxRequests = 100_000

// The readers of a setting that are not one service.
const (
	ofServices   = ""
	ofCommands   = "the command line"
	ofSimulators = "the simulators"
	ofTests      = "the tests"
)

// setting is a variable of the environment. Help, documentation, defaults and the names that
// Misspelt suggests come from the list of settings.
type setting struct {
	name     string // without the prefix; a star stands for the name of the service
	reader   string
	want     string // the form of the value
	fallback string // used while the variable is not set
	instead  string // what happens while it is not set and has no fallback
	least    time.Duration
	secret   bool // the value is not shown
	meaning  string
}

// settings are all settings of the services, the simulators and the command line, which may share
// one environment.
var settings = []setting{
	{name: "*_DATABASE_URL", secret: true, instead: "required",
		want: "`postgres://user:password@host:port/name?sslmode=…` or `host=… dbname=… user=…`",
		meaning: "the database that the service owns; several hosts are separated by commas, and the " +
			"host may be the directory of a socket"},
	{name: "*_LEADER_DATABASE_URL", secret: true, instead: "the same as `*_DATABASE_URL`",
		want: "as `*_DATABASE_URL`",
		meaning: "the direct address of the same database, for the leader and the stream, if the first " +
			"one uses a pooler"},
	{name: "*_AMQP_URL", secret: true, instead: "required",
		want: "`amqp://user:password@host:port/vhost` or `amqps://…`",
		meaning: "the broker, with the user of the service and the virtual host; for a cluster, the " +
			"addresses of all nodes with commas between them: the first that answers is used"},
	{name: "*_URL", instead: "required without `*_LISTEN`",
		want:    "`http://host:port`, without a path",
		meaning: "where clients reach the API; the command line reads it, too"},
	{name: "*_LISTEN", instead: "host and port of `*_URL`", want: "`host:port`",
		meaning: "where the service listens for HTTP"},
	{name: "LISTEN_FD", instead: "the service opens the address", want: "a number from 3 on",
		meaning: "the descriptor of a socket that the parent process has opened at that address, as " +
			"`up` does"},
	{name: "TOKENS_FILE", instead: "no tokens: for a loopback address only",
		want: "the path of a file",
		meaning: "a line `client token` for each client and `client token admin` for an admin; it is " +
			"read at start"},
	{name: "LOG_LEVEL", fallback: "info", want: oneOf(strings.Fields(levels)...),
		meaning: "what is logged, as JSON on standard error"},
	{name: "HTTP_CONCURRENCY", fallback: strconv.Itoa(web.Concurrency),
		want:    "a number from 1 to " + strconv.Itoa(maxRequests),
		meaning: "how many requests of the API are handled at the same time; more are answered 503"},
	{name: "MIGRATE", fallback: "auto", want: oneOf("auto", "check", "off"),
		meaning: "what is done about pending migrations at start: they are applied, they are a reason " +
			"not to start, or nobody looks"},
	{name: "OUTBOX_KEEP", fallback: short(outbox.DefaultKeep), least: time.Minute,
		meaning: "how long published events stay in the outbox"},
	{name: "INBOX_KEEP", fallback: short(consumer.DefaultReceiptHistory), least: time.Minute,
		meaning: "how long a service remembers which events it has handled; longer than the outboxes " +
			"of its publishers are kept"},
	{name: "IDEMPOTENCY_KEEP", fallback: short(idempotency.DefaultKeep), least: time.Minute,
		meaning: "how long the answer to a request is repeated for its idempotency key"},
	{name: "ORDER_DEADLINE", reader: "orders", fallback: short(fulfilment.OrderDeadline),
		least:   time.Second,
		meaning: "the time within which an order must be confirmed; otherwise it is cancelled"},
	{name: "PAYMENTS_PROVIDER_URL", reader: "payments", instead: "cards are declined",
		want: "`http://host:port`", meaning: "the payment provider"},
	{name: "SHIPPING_CARRIER_URL", reader: "shipping", instead: "parcels are not booked",
		want: "`http://host:port`", meaning: "the carrier"},
	{name: "SHIPPING_COUNTRIES", reader: "shipping", instead: "most of Europe, AU, CA, JP, NZ, US",
		want:    "country codes of two capital letters, separated by commas",
		meaning: "the countries that the carrier serves"},
	{name: "BREAKER_OPEN", reader: "payments, shipping", fallback: short(resilience.DefaultOpen),
		least: 100 * time.Millisecond, meaning: "how long the breaker around outside calls stays open"},
	{name: "AMQP_URL", reader: ofCommands, secret: true, want: "as `*_AMQP_URL`",
		meaning: "the broker, with the operator's user"},
	{name: "MANAGEMENT_URL", reader: ofCommands, secret: true,
		want: "`http://user:password@host:port`", meaning: "the management API of the broker"},
	{name: "TOKEN", reader: ofCommands, secret: true, want: "a token of the services' tokens file",
		meaning: "the token of an admin"},
	{name: "*_URLS", reader: ofCommands, want: "addresses, separated by commas",
		instead: "the one of `*_URL`", meaning: "the APIs of all replicas"},
	{name: "SIMULATORS_LISTEN", reader: ofSimulators, fallback: simulatorsListen,
		want: "`host:port`", meaning: "where the simulators listen"},
	{name: "SIMULATORS_URL", reader: ofCommands, want: "`http://host:port`",
		meaning: "where the simulators are reached"},
	{name: "POSTGRES_URL", reader: ofTests, secret: true, want: "as `*_DATABASE_URL`",
		instead: "private servers are started",
		meaning: "the servers to use, together with `QUADRILLE_AMQP_URL` and " +
			"`QUADRILLE_MANAGEMENT_URL`"},
	{name: "SOAK", reader: ofTests, want: "`1`", meaning: "selects the long version of a test"},
}

// of returns the name of the variable for a service.
func (s setting) of(service string) string {
	return prefix + strings.Replace(s.name, "*", strings.ToUpper(service), 1)
}

// reads reports whether a service reads the setting.
func (s setting) reads(service string) bool {
	return s.reader == ofServices || slices.Contains(strings.Split(s.reader, ", "), service)
}

// form returns what a value must look like.
func (s setting) form() string {
	if s.least > 0 {
		return fmt.Sprintf("a duration such as `15m`, at least %s", short(s.least))
	}
	return s.want
}

// setting returns the setting with the name of a variable. A variable that is not in the list is
// a mistake in the program.
func (c *Config) setting(variable string) setting {
	for _, s := range settings {
		if s.of(c.name) == variable {
			return s
		}
	}
	panic("boot: no such setting: " + variable)
}

// short is the text of a duration without minutes and seconds that are zero.
func short(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

func oneOf(words ...string) string { return "`" + strings.Join(words, "`, `") + "`" }

// known returns the names of all settings, including the _FILE variables.
func known(services ...string) (names []string) {
	for _, s := range fulfilment.Topology().Services {
		services = append(services, s.Name)
	}
	for _, s := range settings {
		of := services
		if !strings.Contains(s.name, "*") {
			of = services[:1]
		}
		for _, service := range of {
			names = append(names, s.of(service), s.of(service)+"_FILE")
		}
	}
	return names
}

// Misspelt checks the names in an environment, in the form of os.Environ. A name that is nearly
// that of a setting is an error, because its value would be ignored. Other names with the prefix of
// settings are returned as unknown: they may belong to another release.
func Misspelt(environment []string, services ...string) (unknown []string, err error) {
	names := known(services...)
	var errs []error
	for _, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, prefix) || slices.Contains(names, name) ||
			strings.HasPrefix(name, prefix+"TEST_") {
			continue
		}
		closest := slices.MinFunc(names, func(a, b string) int {
			return levenshtein.ComputeDistance(a, name) - levenshtein.ComputeDistance(b, name)
		})
		if levenshtein.ComputeDistance(closest, name) <= maxDistance {
			errs = append(errs, fmt.Errorf("%s is not a setting: did you mean %s?", name, closest))
			continue
		}
		unknown = append(unknown, name)
	}
	return unknown, errors.Join(errs...)
}
