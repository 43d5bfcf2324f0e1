package rabbit_test

import (
	"flag"
	"maps"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/devstack"
	"github.com/quadrille-go/quadrille/internal/devstack/leaks"
	"github.com/quadrille-go/quadrille/rabbit"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // they mostly wait for the broker
	leaks.Main(m)
}

// patience is how long a test waits for what must come; only a failing test waits that long.
const patience = 2 * time.Minute

// open opens a session that is closed with the test.
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

// vhost returns a fresh vhost with the exchange "x", the queue "q" and a binding for the key "k",
// and a channel to look at it.
func vhost(t testing.TB, args amqp.Table) (url string, admin *amqp.Channel) {
	t.Helper()
	url, _ = devstack.Vhost(t)
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

// over waits until a session has ended and returns why.
func over(t testing.TB, s *rabbit.Session) error {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case <-s.Done():
	case <-deadline.C:
		t.Fatal("the session did not end")
	}
	return s.Err()
}

// until polls a condition.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		<-tick.C
	}
}
