package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/postgres"
)

// The role of a service may connect to its own database and to no other one, also of the server
// itself, and may stream the server's log only once a stream is used.
func TestRolesMayDoNoMoreThanTheyNeed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &Stack{Root: dir, Name: DefaultStack, Log: t.Logf, servers: servertest.PrivatePostgres(t)}
	l, err := loadLogins(s)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again at each start
		if err := l.prepareDatabases(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	databases := map[string]string{"postgres": "", "template1": ""} // each with its owner
	for _, service := range demoServices() {
		databases[l.account(service.Name)] = service.Name
	}
	for _, service := range demoServices() {
		for name, owner := range databases {
			err := connect(t.Context(), withPath(l.databaseURL(service.Name), name))
			var refused *pq.Error
			if owner == service.Name && err != nil {
				t.Errorf("%s may not enter its own database: %v", service.Name, err)
			}
			if owner != service.Name && (!errors.As(err, &refused) ||
				refused.Code.Name() != "insufficient_privilege") {
				t.Errorf("%s is not refused by the database %s: %v", service.Name, name, err)
			}
		}
	}
	if may := streaming(t, l); len(may) != 0 {
		t.Errorf("%q may stream the log of the server, though no stream is used", may)
	}
	if err := l.grantReplication(t.Context()); err != nil {
		t.Fatal(err)
	}
	if may := streaming(t, l); len(may) != len(demoServices()) {
		t.Errorf("only %q may stream", may)
	}
}

func connect(ctx context.Context, url string) error {
	db, err := postgres.Open(url)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return db.PingContext(ctx)
}

// streaming lists the roles of services that may stream, or do anything else beyond their own
// databases.
func streaming(t *testing.T, l *logins) (roles []string) {
	t.Helper()
	db, err := postgres.Open(l.servers.PostgresURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.SelectContext(t.Context(), &roles, `SELECT rolname FROM pg_roles
		WHERE rolname LIKE 'quadrille\_%'
		AND (rolreplication OR rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls)`)
	if err != nil {
		t.Fatal(err)
	}
	return roles
}

// What up --database writes is enough for a service of one's own, which declares its exchange and
// publishes.
func TestServiceOfOnesOwnRunsOnTheServers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shared := *servertest.Shared(t)
	shared.Given = true // other tests use them
	s := &Stack{Root: dir, Name: "own" + strings.ToLower(rand.Text()[:8]), Replicas: 1,
		Databases: []string{"trips"}, Log: t.Logf, servers: &shared}
	t.Cleanup(func() { removeAll(t, s.logins) })
	if err := errors.Join(s.validate(), s.load(), s.prepare(t.Context())); err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, pair := range s.settings() {
		settings[pair[0]] = pair[1]
	}
	trips, err := quadrille.New(quadrille.Config{Name: "trips",
		Publishes: []events.Payload{fulfilment.Samples(events.NewID())[0]},
		Database:  settings["QUADRILLE_TRIPS_DATABASE_URL"], AMQP: settings["QUADRILLE_TRIPS_AMQP_URL"],
		Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- trips.Run(ctx) }()
	var failed error
	ok, err := poll(ctx, func() (bool, error) {
		if _, failed = trips.DB(ctx); failed == nil {
			failed = trips.Tx(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
				return trips.Publish(ctx, tx, fulfilment.Samples(events.NewID())[0])
			})
		}
		return failed == nil, nil
	})
	if !ok || err != nil {
		t.Fatalf("the service does not publish: %v", errors.Join(err, failed))
	}
	ok, err = poll(ctx, func() (bool, error) { return trips.Stats().Relay.Published > 0, nil })
	if !ok || err != nil {
		t.Errorf("the event is not published: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"orders": "has a database already",
		"Trips": "want a name", "": "want a name"} {
		s.Databases = []string{name}
		if err := s.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// removeAll removes what prepare has created on given servers.
func removeAll(t *testing.T, l *logins) {
	ctx := context.WithoutCancel(t.Context())
	if err := l.dropAll(ctx); err != nil {
		t.Error(err)
	}
	db, err := postgres.Open(l.servers.PostgresURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, name := range l.services() {
		if _, err := db.ExecContext(ctx, "DROP ROLE "+pq.QuoteIdentifier(l.account(name))); err != nil {
			t.Error(err)
		}
		if err := localrun.Manage(ctx, l.servers.ManagementURL, "DELETE", "/api/users/"+l.account(name),
			nil, nil); err != nil {
			t.Error(err)
		}
	}
}
