// Package examples_test builds the example programs and runs them on real servers.
package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

func TestMain(m *testing.M) { webtest.Main(m) }

// build compiles an example and returns the path of its program.
func build(t *testing.T, name string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", program, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return program
}

// output is what a program has printed so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs a program until the end of the test, when it must stop by itself after an interrupt.
func start(t *testing.T, env []string, program string, args ...string) *output {
	t.Helper()
	out := &output{}
	c := exec.Command(program, args...)
	c.Env, c.Stdout, c.Stderr = append(os.Environ(), env...), out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(os.Interrupt)
		kill := time.AfterFunc(quadrilletest.Timeout, func() { _ = c.Process.Kill() })
		defer kill.Stop()
		if err := c.Wait(); err != nil {
			t.Errorf("%s ended with %v\n%s", filepath.Base(program), err, out)
		} else if t.Failed() {
			t.Logf("%s printed\n%s", filepath.Base(program), out)
		}
	})
	return out
}

// run runs a program to its end and returns its standard output.
func run(t *testing.T, env []string, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), quadrilletest.Timeout)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Env = append(os.Environ(), env...)
	out, err := c.Output()
	if exit := (*exec.ExitError)(nil); err != nil {
		exit, _ = err.(*exec.ExitError)
		if exit != nil {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
	}
	return strings.TrimSpace(string(out)), err
}

// database returns the address of an empty database, and a pool of it.
func database(t *testing.T) (string, *sqlx.DB) {
	t.Helper()
	url := servertest.Database(t, "empty", func(context.Context, string) error { return nil })
	db, err := postgres.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return url, db
}

// channel opens a channel of a program that does not use the kit.
func channel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	connection, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	ch, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// The row and the event of an invoice both exist, and the event waits until a queue is bound.
func TestMonolith(t *testing.T) {
	t.Parallel()
	url, db := database(t)
	broker, _ := servertest.Vhost(t)
	ch := channel(t, broker)
	start(t, []string{"DATABASE_URL=" + url, "AMQP_URL=" + broker}, build(t, "monolith"), "ada", "bob")
	quadrilletest.WaitFor(t, "the program has stored two invoices", func() (bool, string) {
		var n int
		err := db.GetContext(t.Context(), &n, `SELECT count(*) FROM invoices`)
		return n == 2, fmt.Sprintf("%d invoices, %v", n, err)
	})
	err := ch.ExchangeDeclare("billing.events", "topic", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("reader", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("reader", "invoice.issued", "billing.events", false, nil); err != nil {
		t.Fatal(err)
	}
	customers := map[string]bool{}
	quadrilletest.WaitFor(t, "both events are published", func() (bool, string) {
		d, ok, err := ch.Get("reader", true)
		if !ok {
			return false, fmt.Sprintf("%v, %v", customers, err)
		}
		var data struct{ Invoice, Customer string }
		if err := json.Unmarshal(d.Body, &data); err != nil || d.Headers["ce-subject"] != data.Invoice {
			t.Errorf("%s, headers %v: %v", d.Body, d.Headers, err)
		}
		customers[data.Customer] = true
		return customers["ada"] && customers["bob"], ""
	})
}

// Each event of the other system is counted once, although it arrives several times.
func TestCloudEvents(t *testing.T) {
	t.Parallel()
	url, db := database(t)
	broker, _ := servertest.Vhost(t)
	ch := channel(t, broker)
	if err := ch.ExchangeDeclare("erp.events", "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	start(t, []string{"DATABASE_URL=" + url, "AMQP_URL=" + broker}, build(t, "cloudevents"))
	publish := func(id, at, body string) {
		if err := ch.PublishWithContext(t.Context(), "erp.events", "price.changed", false, false,
			amqp.Publishing{ContentType: "application/json", Body: []byte(body),
				Headers: amqp.Table{"ce-specversion": "1.0", "ce-id": id, "ce-type": "price.changed",
					"ce-source": "/erp", "ce-time": at}}); err != nil {
			t.Error(err)
		}
	}
	first, second := events.NewID(), events.NewID()
	now := time.Now().UTC()
	before := now.Add(-time.Hour)
	quadrilletest.WaitFor(t, "the newest price is stored", func() (bool, string) {
		publish(second, now.Format(time.RFC3339), `{"article": "teapot", "price": 2600, "unit": "piece"}`)
		publish(first,
			before.Format(time.RFC3339), `{"article": "teapot", "price": 2500, "unit": "piece"}`)
		var known struct{ Price, Changes int64 }
		err := db.GetContext(t.Context(), &known, `SELECT price, changes FROM prices`)
		if known.Changes > 2 || known.Changes == 2 && known.Price != 2600 {
			t.Fatalf("%+v", known)
		}
		return known.Changes == 2, fmt.Sprintf("%+v, %v", known, err)
	})
}

// booking is a trip and its expected end.
type booking struct{ hotel, flight, amount, state string }

// ends reports whether a service is right about the booking, when ten rooms or seats were free and
// only the first booking is confirmed.
func (b booking) ends(reservation string) bool {
	if b.state == "confirmed" {
		return reservation == "9 reserved"
	}
	return slices.Contains([]string{"9 released", "9 rejected", "9 void"}, reservation)
}

// Each trip ends as expected, all three services agree, and the command line shows the way.
func TestTravel(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	address := servertest.Addresses(t, 1)[0]
	env := []string{"QUADRILLE_AMQP_URL=" + broker}
	databases := map[string]*sqlx.DB{}
	for _, name := range []string{"trips", "hotels", "flights"} {
		url, db := database(t)
		databases[name] = db
		upper := strings.ToUpper(name)
		env = append(env, "QUADRILLE_"+upper+"_DATABASE_URL="+url,
			"QUADRILLE_"+upper+"_URL=http://"+address+"/"+name)
	}
	travel := build(t, "travel")
	if out, err := run(t, env, travel, "topology", "apply"); err != nil {
		t.Fatalf("topology apply: %v\n%s", err, out)
	}
	start(t, env, travel, "serve", "--listen", address)
	for _, trip := range []booking{
		{"ritz", "BA1", "50000", "confirmed"},
		{"ritz", "BA0", "50000", "cancelled"},
		{"full", "BA1", "50000", "cancelled"},
		{"ritz", "BA1", "100001", "cancelled"}, // the payment is declined
	} {
		var id string
		quadrilletest.WaitFor(t, "the program takes a booking", func() (ok bool, _ string) {
			out, err := run(t, env, travel, "book", "--hotel", trip.hotel, "--flight", trip.flight,
				"--amount", trip.amount)
			id = out
			return err == nil, fmt.Sprint(err)
		})
		var state, rooms, seats string
		quadrilletest.WaitFor(t, "the trip ends and the services agree", func() (bool, string) {
			err := databases["trips"].GetContext(t.Context(), &state,
				`SELECT state FROM trips WHERE id = $1`, id)
			if err == nil {
				err = databases["hotels"].GetContext(t.Context(), &rooms, `SELECT free || ' ' || state
					FROM hotels, rooms WHERE name = 'ritz' AND trip = $1`, id)
			}
			if err == nil {
				err = databases["flights"].GetContext(t.Context(), &seats, `SELECT free || ' ' || state
					FROM flights, seats WHERE name = 'BA1' AND trip = $1`, id)
			}
			return state == trip.state && trip.ends(rooms) && trip.ends(seats),
				fmt.Sprint(trip, state, rooms, seats, err)
		})
		out, err := run(t, env, travel, "trace", id)
		if err != nil || !strings.Contains(out, "trip."+trip.state) {
			t.Errorf("trace of %+v: %v\n%s", trip, err, out)
		}
	}
	if out, err := run(t, env, travel, "book", "--hotel", "ritz"); err == nil ||
		!strings.Contains(err.Error(), "a trip needs an id, a hotel and a flight") {
		t.Errorf("a booking without a flight: %v\n%s", err, out)
	}
}

// Getting started shows what the command check prints.
func TestTravelCheck(t *testing.T) {
	t.Parallel()
	out, err := run(t, nil, build(t, "travel"), "check")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/getting-started.md")
	if err != nil {
		t.Fatal(err)
	}
	plain := out[:strings.LastIndex(out, ",")] // without the seconds
	if !strings.Contains(string(page), plain) {
		t.Errorf("docs/getting-started.md differs from the output of travel check:\n%s", out)
	}
}
