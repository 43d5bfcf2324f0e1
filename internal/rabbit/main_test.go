package rabbit_test

import (
	"flag"
	"maps"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/servertest/leaks"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // the tests mostly wait for the broker
	leaks.Main(m)
}

// waitTimeout bounds how long a test waits for a condition. Only a failing test waits that long.
const waitTimeout = quadrilletest.Timeout

// open opens a session and closes it at the end of the test.
func open(t testing.TB, url string) *rabbit.Session {
	t.Helper()
	s, err := rabbit.Open(t.Context(), url, t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func publisher(t testing.TB, url string) *rabbit.Publisher {
	t.Helper()
	p, err := rabbit.NewPublisher(open(t, url))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// vhost returns the URL of a new virtual host that has the exchange "x", the queue "q" and
// a binding for the key "k", and a channel with which a test inspects it.
func vhost(t testing.TB, args amqp.Table) (url string, admin *amqp.Channel) {
	t.Helper()
	url, _ = servertest.Vhost(t)
	admin = channel(t, url)
	must(t, admin.ExchangeDeclare("x", "topic", true, false, false, false, nil))
	all := amqp.Table{"x-queue-type": "quorum"}
	maps.Copy(all, args)
	_, err := admin.QueueDeclare("q", true, false, false, false, all)
	must(t, err)
	must(t, admin.QueueBind("q", "k", "x", false, nil))
	return url, admin
}

func channel(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	must(t, err)
	return ch
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitClosed waits until a session has ended, and returns the reason.
func waitClosed(t testing.TB, s *rabbit.Session) error {
	t.Helper()
	deadline := time.NewTimer(waitTimeout)
	defer deadline.Stop()
	select {
	case <-s.Done():
	case <-deadline.C:
		t.Fatal("the session did not end")
	}
	return s.Err()
}

// waitFor waits until a condition is true.
func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	quadrilletest.WaitFor(t, what, func() (bool, string) { return f(), "" })
}
