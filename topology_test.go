package quadrille_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

// Replicas that start together migrate one after the other, and share the work without doing any
// twice.
func TestReplicasStartTogetherAndShareTheWork(t *testing.T) {
	t.Parallel()
	url := database(t)
	broker, _ := servertest.Vhost(t)
	replicas := make([]*quadrille.Service, 4)
	for i := range replicas {
		replicas[i] = members(t, url, broker)
	}
	meetAtMigration(t, url, len(replicas), func() {
		webtest.Together(t, 2*len(replicas),
			func(i int) error { return replicas[i%len(replicas)].Open(t.Context()) })
	})
	const joined = 60
	for i, s := range replicas {
		stop := run(t, s)
		if i == 0 {
			defer stop()
		}
	}
	webtest.Together(t, joined, func(i int) error {
		s := replicas[i%len(replicas)]
		return s.Tx(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
			return s.Publish(ctx, tx, UserJoined{strconv.Itoa(i), strconv.Itoa(i) + "@example.com"})
		})
	})
	becomes(t, replicas[0], joined, "welcomed")
	if n := count(t, replicas[0], "(SELECT DISTINCT email FROM welcomed) AS d"); n != joined {
		t.Errorf("%d of %d were welcomed", n, joined)
	}
	if n := count(t, replicas[0], "pending"); n != 0 {
		t.Errorf("%d pending", n)
	}
}

// meetAtMigration keeps n replicas, which open starts, waiting for each other's migration until all
// have come.
func meetAtMigration(t *testing.T, url string, n int, open func()) {
	t.Helper()
	db, err := pg.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Connx(t.Context())
	if err == nil {
		_, err = conn.ExecContext(t.Context(), `SELECT pg_advisory_lock(hashtextextended('migrate', 0))`)
	}
	if err != nil {
		t.Fatal(err)
	}
	var opening sync.WaitGroup
	opening.Go(open)
	quadrilletest.WaitFor(t, "all replicas wait to migrate", func() (bool, string) {
		var waiting int
		err := db.GetContext(t.Context(), &waiting, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE '%pg_try_advisory_lock%'
				AND pid <> pg_backend_pid()`)
		return waiting == n, fmt.Sprint(waiting, " wait, ", err)
	})
	_ = conn.Close()
	_ = db.Close() // with the session goes the lock
	opening.Wait()
}

// club is a topology that names the service: an operator applies it.
var club = topology.Topology{Name: "club", Services: []topology.Service{{
	Name: "members", Commands: []topology.Command{{Does: "join", Publishes: []string{"user.joined"}}},
	Reacts: []topology.Reaction{{Handles: "user.joined", Does: "welcome"}},
}}}

func TestAMemberWaitsUntilItsTopologyIsApplied(t *testing.T) {
	t.Parallel()
	operator, management := servertest.Vhost(t)
	rights := topology.PermissionOf("members")
	broker := servertest.User(t, operator, management, "members", rights.Configure, rights.Write,
		rights.Read)
	var log lines
	s := members(t, database(t), broker, func(c *quadrille.Config) {
		c.Topology, c.Log = club, zerolog.New(&log)
	})
	run(t, s)
	publish(t, s, UserJoined{"1", "ada@example.com"})
	log.becomes(t, "apply the topology")
	if err := s.Ready(t.Context()); err != nil || s.Connected() || s.Stats().Relay.Published != 0 {
		t.Errorf("ready: %v, connected %v, %+v", err, s.Connected(), s.Stats())
	}
	if err := rabbit.Apply(t.Context(), operator, club); err != nil {
		t.Fatal(err)
	}
	becomes(t, s, 1, "welcomed")
	if !s.Connected() {
		t.Error("it is not connected")
	}
}

// declared lists the queues and the exchanges of a vhost that are not the broker's own.
func declared(t *testing.T, management, broker string) (names []string) {
	t.Helper()
	vhost := broker[strings.LastIndex(broker, "/")+1:]
	for _, kind := range []string{"queues", "exchanges"} {
		var found []struct{ Name string }
		if err := localrun.Manage(t.Context(), management, http.MethodGet, "/api/"+kind+"/"+vhost, nil,
			&found); err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f.Name != "" && !strings.HasPrefix(f.Name, "amq.") {
				names = append(names, f.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// A stranger's service joins the choreography: it declares its own part and nothing of the others'.
func TestANewServiceDeclaresOnlyItsOwnPart(t *testing.T) {
	t.Parallel()
	broker, management := servertest.Vhost(t)
	conn, err := amqp.Dial(broker)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err == nil { // all that is there of the choreography
		err = ch.ExchangeDeclare("orders.events", "topic", true, false, false, false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	points := func(ctx context.Context, tx *sqlx.Tx, e events.Of[fulfilment.OrderConfirmed]) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO welcomed VALUES ($1, $2)`, e.ID, e.Data.OrderID)
		return err
	}
	s := members(t, database(t), broker, func(c *quadrille.Config) {
		c.Name, c.Publishes, c.Topology = "loyalty", nil, fulfilment.Topology()
		c.Handlers = []consumer.Handler{consumer.Handle(points)}
	})
	run(t, s)
	quadrilletest.WaitFor(t, "a consumer of loyalty.in", func() (bool, string) {
		check, err := conn.Channel()
		if err != nil {
			return false, err.Error()
		}
		defer func() { _ = check.Close() }()
		q, err := check.QueueDeclarePassive("loyalty.in", true, false, false, false, nil)
		return err == nil && q.Consumers == 1, "none"
	})
	want := []string{"loyalty.dead", "loyalty.events", "loyalty.in", "orders.events"}
	if got := declared(t, management, broker); !slices.Equal(got, want) {
		t.Errorf("declared %q, want %q", got, want)
	}
	record, err := events.Cause(events.Event{}, "/orders", now(),
		fulfilment.OrderConfirmed{OrderID: events.NewID()}).Record()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.PublishWithContext(t.Context(), "orders.events", "order.confirmed", true, false,
		rabbit.Publishing(record)); err != nil {
		t.Fatal(err)
	}
	becomes(t, s, 1, "welcomed")
}
