package demo

import (
	"context"
	"errors"
	"testing"

	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/devstack"
	"github.com/quadrille-go/quadrille/postgres"
)

// The role of a service may connect to its own database and to no other one, also of the server
// itself, and may stream the server's log only once a stream is used.
func TestRolesMayDoNoMoreThanTheyNeed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &Stack{Root: dir, Name: DefaultStack, Log: t.Logf, servers: devstack.PrivatePostgres(t)}
	var err error
	if s.state, err = loadState(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again at each start
		if err := s.prepareDatabases(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	databases := map[string]string{"postgres": "", "template1": ""} // each with its owner
	for _, service := range s.services() {
		databases[s.account(service.Name)] = service.Name
	}
	for _, service := range s.services() {
		for name, owner := range databases {
			err := connect(t.Context(), withPath(s.databaseURL(service.Name), name))
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
	if may := s.streaming(t); len(may) != 0 {
		t.Errorf("%q may stream the log of the server, though no stream is used", may)
	}
	if err := s.grantReplication(t.Context()); err != nil {
		t.Fatal(err)
	}
	if may := s.streaming(t); len(may) != len(s.services()) {
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
func (s *Stack) streaming(t *testing.T) (roles []string) {
	t.Helper()
	db, err := postgres.Open(s.servers.PostgresURL)
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
