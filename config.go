package quadrille

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/logfields"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/tracing"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/topology"
)

// Config is what a service is made of. Name, AMQP and Database are required; every other field has
// a default.
type Config struct {
	Name      string             // lower case; also the name of the service's exchange and queue
	Publishes []events.Payload   // a value of each type that it publishes
	Handlers  []consumer.Handler // what it does about events, deadlines, requests and answers

	// Database is the address of the service's own database, see pg.Address. It may name several
	// hosts, separated by commas: the first that accepts writes is used. TLS is configured by the
	// parameters sslmode, sslrootcert, sslcert and sslkey, or by DatabaseTLS.
	Database    string
	DatabaseTLS TLS
	// DB is an open pool of the database, made by pg.Open with the address in Database, to share
	// it with other code. The service does not close it.
	DB *sqlx.DB
	// LeaderDatabase is another address of the same database, for the sessions that a leader keeps,
	// for notifications and for a stream: a direct one if Database uses a pooler. Default: Database.
	LeaderDatabase string

	// AMQP is the amqp:// or amqps:// URL of the broker with the virtual host. It may be several URLs,
	// separated by commas: the first that answers is used.
	AMQP    string
	AMQPTLS TLS

	// Topology is the choreography that the service is part of. If it names the service, an operator
	// applies the topology, and the service waits until that is done. Otherwise the service declares
	// its own exchange, queue and bindings.
	Topology topology.Topology
	// Migrations are those of the service's own tables, in goose's format, by the name of their
	// series. The kit's own tables are migrated in any case.
	Migrations map[string]fs.FS
	// Migrate says what is done about pending migrations at start: "auto", the default, applies them;
	// "check" refuses to start with ErrNotMigrated; "off" does not look. See Service.Migrate.
	Migrate string
	// Components run as parts of the service; see Component. A component is part of one Service only:
	// another one needs a component of its own.
	Components []Component
	// Stream gives the relay a second way to find committed events, such as that of package
	// outbox/cdc; outbox.Outbox.UseSource selects it. nil: the relay has only the window.
	Stream func(db *sqlx.DB) outbox.Source
	// Mandatory selects the types whose events are held while no queue is bound for them. Default: the
	// types that have a subscriber in the topology. Events of other types are published without a
	// consumer then, which is counted and logged.
	Mandatory func(eventType string) bool
	// OutboxKeep is how long published events stay in the outbox, so that they can be replayed when
	// the broker loses them. It must not be longer than Bounds.ReceiptHistory. Default
	// outbox.DefaultKeep (14 days); negative: they are never deleted, and consumers park what is
	// replayed when it is older than their receipts.
	OutboxKeep time.Duration
	// Bounds are the limits of consuming: lanes, batches, prefetch, time-outs, attempts, call workers.
	Bounds consumer.Bounds
	// Middleware wraps every handler, reaction and outside call, the first one outermost. Package
	// quadrilleprom has one for metrics.
	Middleware []consumer.Middleware
	// Tracer makes a span of each publication, handling and outside call; package quadrilleotel has
	// one for OpenTelemetry. nil: nothing is traced, and the trace contexts of events are passed on.
	Tracer *Tracer
	// Audit returns what contradicts the invariants of the service's own tables. It gets a transaction
	// that only reads, and sees one snapshot, so that it may run next to traffic. nil: only the kit's
	// own tables are audited. See the command audit.
	Audit func(ctx context.Context, tx *sqlx.Tx) ([]admin.Finding, error)
	// Log gets what happens. Each line names the service and the release; a line about an event has
	// its event_id, event_type, subject, correlation_id, causation_id, trace_id and attempt. The zero
	// value writes warnings and errors to standard error, since a service that waits for its servers
	// would otherwise be silent; zerolog.Nop() logs nothing.
	Log zerolog.Logger
}

// Tracer connects a service to a tracing library.
type Tracer = tracing.Tracer

// Component is an optional part of a service with tables or work of its own, such as the
// projections of package eventstore.
type Component interface {
	// Migrations returns the migrations of the component's tables, by the name of their series.
	Migrations() map[string]fs.FS
	// Open is called once, after all migrations and before anything runs. Replicas may call it at the
	// same time.
	Open(ctx context.Context, h Host) error
	// Run runs until ctx is done, next to the relay and the consumer.
	Run(ctx context.Context)
}

// Host is what a component gets of its service.
type Host struct {
	Name string // of the service
	DB   *sqlx.DB
	Log  zerolog.Logger
}

// ErrMisconfigured says that waiting will not help: a name, an address, a bound or the choreography
// is wrong.
var ErrMisconfigured = errors.New("service is misconfigured")

// New returns a service, or all faults of its configuration in one error, which wraps
// ErrMisconfigured. It does not connect yet.
func New(c Config) (*Service, error) {
	if reflect.ValueOf(c.Log).IsZero() {
		c.Log = zerolog.New(os.Stderr).Level(zerolog.WarnLevel).With().Timestamp().Logger()
	}
	c.Log = logfields.Named(c.Log, c.Name)
	s := &Service{config: c}
	var faults []error
	address := func(field string, of *string, tls func(string) (string, error)) {
		with, err := tls(*of)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", field, err))
			return
		}
		*of = with
	}
	address("DatabaseTLS", &s.config.Database, c.DatabaseTLS.database)
	if c.LeaderDatabase != "" {
		address("DatabaseTLS of LeaderDatabase", &s.config.LeaderDatabase, c.DatabaseTLS.database)
	}
	address("AMQPTLS", &s.config.AMQP, c.AMQPTLS.amqp)
	var err error
	s.role, err = roleOf(c)
	faults = append(faults, err, s.config.checkAddresses(), c.checkMigrate(),
		c.consumer(s.role.topology).Validate())
	if keep, known := cmp.Or(c.OutboxKeep, outbox.DefaultKeep), c.consumer(s.role.topology).Compile().
		Bounds.ReceiptHistory; keep > known {
		faults = append(faults,
			fmt.Errorf("OutboxKeep is %s and Bounds.ReceiptHistory is %s: a replay of "+
				"older events would not be known to have been handled, so the receipts must be kept longer",
				keep, known))
	}
	if slices.Contains(c.Components, nil) {
		faults = append(faults, errors.New("Components contains nil"))
	}
	if faults := errors.Join(faults...); faults != nil {
		return nil, fmt.Errorf("%w: %w", ErrMisconfigured, faults)
	}
	return s, nil
}

// checkAddresses returns the faults of the addresses.
func (c Config) checkAddresses() error {
	var faults []error
	if err := rabbit.CheckURL(c.AMQP); err != nil {
		faults = append(faults, fmt.Errorf("AMQP: %w", err))
	}
	if _, err := pg.Address(c.Database); err != nil {
		faults = append(faults, fmt.Errorf("Database: %w", err))
	} else if db, err := pg.Open(c.Database); err != nil {
		faults = append(faults, fmt.Errorf("Database: %w", err))
	} else {
		_ = db.Close() // it has not connected
	}
	if c.LeaderDatabase != "" {
		if _, err := pg.Address(c.LeaderDatabase); err != nil {
			faults = append(faults, fmt.Errorf("LeaderDatabase: %w", err))
		}
	}
	return errors.Join(faults...)
}

// consumer returns what the service does about events, in a topology.
func (c Config) consumer(t topology.Topology) consumer.Consumer {
	return consumer.Consumer{Name: c.Name, Topology: t, Handlers: c.Handlers, Bounds: c.Bounds,
		Middleware: c.Middleware}
}

// Config returns the configuration of the service.
func (s *Service) Config() Config { return s.config }

// Name returns the name of the service.
func (s *Service) Name() string { return s.config.Name }
