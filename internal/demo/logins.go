package demo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/topology"
)

// logins are the accounts of the services on both servers: each service has a broker user, and a
// database with a role of its own.
type logins struct {
	servers *localrun.Servers
	stack   string   // a part of each name, so that two stacks can share given servers
	own     []string // services that are not those of the demo

	path    string
	secrets map[string]string // by service
}

// loadLogins returns the logins of a stack with the passwords that are saved in its folder.
func loadLogins(s *Stack) (*logins, error) {
	l := &logins{servers: s.servers, stack: s.Name, own: s.Databases,
		path: filepath.Join(s.dir(), "secrets.json"), secrets: map[string]string{}}
	content, err := os.ReadFile(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &l.secrets)
	}
	if err != nil {
		return nil, fmt.Errorf("read the passwords of the stack: %s is damaged: run %s, "+
			"then remove the file: %w", l.path, s.App.Command("down"), err)
	}
	return l, nil
}

func (l *logins) save() error {
	content, err := json.MarshalIndent(l.secrets, "", "  ")
	if err != nil {
		return fmt.Errorf("save the passwords of the stack: %w", err)
	}
	return localrun.WriteFile(l.path, string(content))
}

func (l *logins) secret(service string) string {
	if l.secrets[service] == "" {
		l.secrets[service] = rand.Text()
	}
	return l.secrets[service]
}

// services returns the names of all services that have a login.
func (l *logins) services() []string {
	var names []string
	for _, service := range demoServices() {
		names = append(names, service.Name)
	}
	return append(names, l.own...)
}

// account is the name of a service's user, role and database.
func (l *logins) account(service string) string { return l.stack + "_" + service }

// operatorURL returns the URL of the administrator for the virtual host of the stack.
func (l *logins) operatorURL() string { return withPath(l.servers.AMQPURL, l.stack) }

func (l *logins) amqpURL(service string) string {
	return withUser(l.operatorURL(), l.account(service), l.secret(service))
}

func (l *logins) databaseURL(service string) string {
	return withUser(withPath(l.servers.PostgresURL, l.account(service)), l.account(service),
		l.secret(service))
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
func (l *logins) prepareBroker(ctx context.Context) error {
	put := func(path string, body any) error {
		return localrun.Manage(ctx, l.servers.ManagementURL, "PUT", path, body, nil)
	}
	vhost := url.PathEscape(l.stack)
	operator, err := url.Parse(l.servers.AMQPURL)
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
	for _, name := range l.services() {
		user := url.PathEscape(l.account(name))
		if err := put("/api/users/"+user, map[string]string{"password": l.secret(name),
			"tags": ""}); err != nil {
			return err
		}
		may := topology.PermissionOf(name)
		if slices.Contains(l.own, name) {
			may = all // no operator declares its exchange and queues
		}
		if err := put("/api/permissions/"+vhost+"/"+user, may); err != nil {
			return err
		}
	}
	return l.save()
}

// prepareDatabases creates a role and a database for each service, to which no other role may
// connect.
func (l *logins) prepareDatabases(ctx context.Context) error {
	db, err := postgres.Open(l.servers.PostgresURL)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if !l.servers.Given {
		if _, err := db.ExecContext(ctx,
			"REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC"); err != nil {
			return fmt.Errorf("revoke the access to the databases postgres and template1: %w", err)
		}
	}
	for _, name := range l.services() {
		if err := l.prepareDatabase(ctx, db, l.account(name), l.secret(name)); err != nil {
			return fmt.Errorf("database of %s: %w", name, err)
		}
	}
	return nil
}

func (l *logins) prepareDatabase(ctx context.Context, db *sqlx.DB, name, password string) error {
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
func (l *logins) grantReplication(ctx context.Context) error {
	db, err := postgres.Open(l.servers.PostgresURL)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for _, service := range demoServices() {
		if _, err := db.ExecContext(ctx, "ALTER ROLE "+pq.QuoteIdentifier(l.account(service.Name))+
			" REPLICATION"); err != nil {
			return fmt.Errorf("grant REPLICATION to the role of %s: %w", service.Name, err)
		}
	}
	return nil
}

// dropAll drops the databases and the virtual host of the stack.
func (l *logins) dropAll(ctx context.Context) error {
	db, err := postgres.Open(l.servers.PostgresURL)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for _, name := range l.services() {
		if _, err := db.ExecContext(ctx, "DROP DATABASE IF EXISTS "+
			pq.QuoteIdentifier(l.account(name))+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("reset: %w", err)
		}
	}
	path := "/api/vhosts/" + url.PathEscape(l.stack)
	if localrun.Manage(ctx, l.servers.ManagementURL, "GET", path, nil, nil) == nil {
		return localrun.Manage(ctx, l.servers.ManagementURL, "DELETE", path, nil, nil)
	}
	return nil
}
