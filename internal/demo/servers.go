package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/topology"
)

// account is the name of a service's accounts on both servers. It contains the name of the stack,
// so that two stacks can share given servers.
func (s *Stack) account(service string) string { return s.Name + "_" + service }

// operatorURL returns the URL of the administrator for the virtual host of the stack.
func (s *Stack) operatorURL() string { return withPath(s.servers.AMQPURL, s.Name) }

func (s *Stack) amqpURL(service string) string {
	return withUser(s.operatorURL(), s.account(service), s.state.secret(service))
}

func (s *Stack) databaseURL(service string) string {
	return withUser(withPath(s.servers.PostgresURL, s.account(service)), s.account(service),
		s.state.secret(service))
}

func withPath(raw, path string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw // it cannot fail: the URL was used before
	}
	u.Path = "/" + path
	return u.String()
}

func withUser(raw, user, password string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// redacted returns a URL without its password.
func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Redacted()
}

// prepareBroker creates the virtual host and a user for each service, with the permissions of the
// topology.
func (s *Stack) prepareBroker(ctx context.Context) error {
	put := func(path string, body any) error {
		return localrun.Manage(ctx, s.servers.ManagementURL, "PUT", path, body, nil)
	}
	vhost := url.PathEscape(s.Name)
	operator, err := url.Parse(s.servers.AMQPURL)
	if err != nil {
		return fmt.Errorf("address of the broker: %w", err)
	}
	if err := put("/api/vhosts/"+vhost, map[string]any{}); err != nil {
		return err
	}
	all := topology.Permission{Configure: ".*", Write: ".*", Read: ".*"}
	if err := put("/api/permissions/"+vhost+"/"+url.PathEscape(operator.User.Username()),
		all); err != nil {
		return err
	}
	for _, name := range s.accounts() {
		user := url.PathEscape(s.account(name))
		if err := put("/api/users/"+user, map[string]string{"password": s.state.secret(name),
			"tags": ""}); err != nil {
			return err
		}
		may := topology.PermissionOf(name)
		if slices.Contains(s.Databases, name) {
			may = all // no operator declares its exchange and queues
		}
		if err := put("/api/permissions/"+vhost+"/"+user, may); err != nil {
			return err
		}
	}
	return s.state.save()
}

// prepareDatabases creates a role and a database for each service, to which no other role may
// connect.
func (s *Stack) prepareDatabases(ctx context.Context) error {
	db, err := postgres.Open(s.servers.PostgresURL)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if !s.servers.Given {
		if _, err := db.ExecContext(ctx,
			"REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC"); err != nil {
			return fmt.Errorf("revoke the access to the databases postgres and template1: %w", err)
		}
	}
	for _, name := range s.accounts() {
		if err := s.prepareDatabase(ctx, db, s.account(name), s.state.secret(name)); err != nil {
			return fmt.Errorf("database of %s: %w", name, err)
		}
	}
	return nil
}

func (s *Stack) prepareDatabase(ctx context.Context, db *sqlx.DB, name, password string) error {
	var role, database bool
	if err := db.QueryRowxContext(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1),
		EXISTS (SELECT FROM pg_database WHERE datname = $1)`,
		name).Scan(&role, &database); err != nil {
		return err
	}
	quoted := pq.QuoteIdentifier(name)
	verb := "CREATE"
	if role {
		verb = "ALTER"
	}
	statements := []string{verb + " ROLE " + quoted + " LOGIN PASSWORD " + pq.QuoteLiteral(password)}
	if !database {
		statements = append(statements, "CREATE DATABASE "+quoted+" OWNER "+quoted)
	}
	statements = append(statements, "REVOKE ALL ON DATABASE "+quoted+" FROM PUBLIC")
	for _, statement := range statements {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// grantReplication gives the roles of the services the right to stream the log of the server. The
// log contains all databases, so the roles get this right only where a stream is used.
func (s *Stack) grantReplication(ctx context.Context) error {
	db, err := postgres.Open(s.servers.PostgresURL)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for _, service := range demoServices() {
		if _, err := db.ExecContext(ctx, "ALTER ROLE "+pq.QuoteIdentifier(s.account(service.Name))+
			" REPLICATION"); err != nil {
			return fmt.Errorf("grant REPLICATION to the role of %s: %w", service.Name, err)
		}
	}
	return nil
}

// Reset empties the stack, whose services must not run. Private servers are started without their
// data. Deleting the virtual host instead does not work: a quorum queue that is declared again soon
// afterwards conflicts with the remains of the old one. On given servers the databases and the
// virtual host are dropped.
func (s *Stack) Reset(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if s.state, err = loadState(s.dir()); err != nil {
		return err
	}
	s.stopServices(ctx)
	if err := localrun.Stop(s.serverDir()); err != nil {
		return err
	}
	if err := os.RemoveAll(s.serverDir()); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	if s.servers, err = localrun.Start(ctx, localrun.Options{Dir: s.serverDir(), Log: s.Log,
		Detached: s.Detached}); err != nil {
		return err
	}
	if !s.servers.Given {
		return nil
	}
	return s.dropAll(ctx)
}

func (s *Stack) dropAll(ctx context.Context) error {
	db, err := postgres.Open(s.servers.PostgresURL)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for _, name := range s.accounts() {
		if _, err := db.ExecContext(ctx, "DROP DATABASE IF EXISTS "+
			pq.QuoteIdentifier(s.account(name))+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("reset: %w", err)
		}
	}
	path := "/api/vhosts/" + url.PathEscape(s.Name)
	if localrun.Manage(ctx, s.servers.ManagementURL, "GET", path, nil, nil) == nil {
		return localrun.Manage(ctx, s.servers.ManagementURL, "DELETE", path, nil, nil)
	}
	return nil
}

// settings returns the settings with which other programs can use the stack, in the order in which
// they are written.
func (s *Stack) settings() [][2]string {
	list := [][2]string{{"QUADRILLE_AMQP_URL", s.operatorURL()},
		{"QUADRILLE_MANAGEMENT_URL", s.servers.ManagementURL}}
	list = append(list, [2]string{"QUADRILLE_SIMULATORS_URL", "http://" + s.state.address(simulators)})
	for _, service := range demoServices() {
		prefix := "QUADRILLE_" + strings.ToUpper(service.Name) + "_"
		list = append(list,
			[2]string{prefix + "URL", s.state.url(service.Name)},
			[2]string{prefix + "URLS", s.replicaURLs(service.Name)},
			[2]string{prefix + "AMQP_URL", s.amqpURL(service.Name)},
			[2]string{prefix + "DATABASE_URL", s.databaseURL(service.Name)})
	}
	for _, name := range s.Databases {
		prefix := "QUADRILLE_" + strings.ToUpper(name) + "_"
		list = append(list, [2]string{prefix + "AMQP_URL", s.amqpURL(name)},
			[2]string{prefix + "DATABASE_URL", s.databaseURL(name)})
	}
	return list
}

// replicaURLs returns the addresses of all replicas of a service, separated by commas.
func (s *Stack) replicaURLs(service string) string {
	var list []string
	for i := 1; i <= s.Replicas; i++ {
		list = append(list, "http://"+s.state.address(fmt.Sprintf("%s-%d", service, i)))
	}
	return strings.Join(list, ",")
}

// writeEnv writes the settings in shell syntax, readable by the owner only.
func (s *Stack) writeEnv() error {
	var b strings.Builder
	for _, pair := range s.settings() {
		fmt.Fprintf(&b, "export %s='%s'\n", pair[0], pair[1])
	}
	if err := writeFile(filepath.Join(s.dir(), "env"), b.String()); err != nil {
		return err
	}
	return s.state.save() // with the ports that settings chose
}

// writePIDs writes a line "name pid" for each process, including the servers.
func (s *Stack) writePIDs() error {
	var b strings.Builder
	for _, name := range []string{"rabbitmq", "postgres"} {
		if pid := s.servers.PIDs[name]; pid != 0 {
			fmt.Fprintf(&b, "%s %d\n", name, pid)
		}
	}
	for _, name := range s.processes() {
		fmt.Fprintf(&b, "%s %d\n", name, s.state.Processes[name].PID)
	}
	return writeFile(filepath.Join(s.dir(), "pids"), b.String())
}

func newSecret() string { return rand.Text() }
