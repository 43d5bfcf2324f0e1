package quadrilletest

import (
	"context"
	"testing"

	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

// Servers are one RabbitMQ and one PostgreSQL.
type Servers struct {
	AMQP       string // URL of an administrator, virtual host "/"
	Management string // URL of the management API, of the same administrator
	Postgres   string // URL of a superuser

	running *localrun.Servers
	private bool
}

// Shared returns the servers that all tests of this module share; see the package comment. The
// first call starts them, which takes some seconds.
func Shared(t testing.TB) *Servers {
	t.Helper()
	return of(servertest.Shared(t), false)
}

// Private starts servers for this test alone, which takes some seconds. They end with the test,
// even if it crashes. The environment has no influence, since a test must not kill servers of
// others.
func Private(t testing.TB) *Servers {
	t.Helper()
	return of(servertest.Private(t), true)
}

func of(s *localrun.Servers, private bool) *Servers {
	return &Servers{AMQP: s.AMQPURL, Management: s.ManagementURL, Postgres: s.PostgresURL,
		running: s, private: private}
}

// Database creates an empty database and returns its URL. The database is dropped when the test
// ends.
func (s *Servers) Database(t testing.TB) string {
	t.Helper()
	return servertest.DatabaseOn(t, s.Postgres, "empty",
		func(context.Context, string) error { return nil })
}

// VirtualHost creates a virtual host and returns its AMQP URL, of an administrator. The virtual
// host is deleted when the test ends.
func (s *Servers) VirtualHost(t testing.TB) string {
	t.Helper()
	return servertest.VhostOn(t, s.AMQP, s.Management)
}

// KillPostgres ends PostgreSQL like a crash. Only private servers may be killed or restarted.
func (s *Servers) KillPostgres(t testing.TB) { t.Helper(); s.fault(t, s.running.KillPostgres) }

// KillRabbitMQ ends RabbitMQ like a crash.
func (s *Servers) KillRabbitMQ(t testing.TB) { t.Helper(); s.fault(t, s.running.KillRabbitMQ) }

// RestartPostgres stops PostgreSQL in an orderly way, if it runs, and starts it at the same address
// with the same data. It returns when PostgreSQL answers.
func (s *Servers) RestartPostgres(t testing.TB) {
	t.Helper()
	s.fault(t, func() error { return s.running.RestartPostgres(t.Context()) })
}

// RestartRabbitMQ is RestartPostgres for RabbitMQ.
func (s *Servers) RestartRabbitMQ(t testing.TB) {
	t.Helper()
	s.fault(t, func() error { return s.running.RestartRabbitMQ(t.Context()) })
}

func (s *Servers) fault(t testing.TB, cause func() error) {
	t.Helper()
	if !s.private {
		t.Fatal("other tests use these servers, too: kill and restart those of quadrilletest.Private")
	}
	if err := cause(); err != nil {
		t.Fatal(err)
	}
}
