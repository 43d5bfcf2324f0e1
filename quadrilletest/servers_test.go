package quadrilletest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/quadrilletest"
)

// Two services run on servers of the kit, and what they publish is recorded.
func TestServicesOnServers(t *testing.T) {
	t.Parallel()
	servers := quadrilletest.Shared(t)
	broker := servers.VirtualHost(t)
	published := quadrilletest.Record(t, broker, "members", "mail")
	from := members(t, servers.Database(t), broker)
	to := mail(t, servers.Database(t), broker)
	stopMail := quadrilletest.Run(t, to)
	stopMembers := quadrilletest.Run(t, from)
	// An event is published to the queues that exist, so both services must have declared theirs.
	quadrilletest.WaitFor(t, "both are connected", func() (bool, string) {
		return from.Connected() && to.Connected(), fmt.Sprint(from.Healthy(), to.Healthy())
	})
	if err := join(t.Context(), from, "1", "2"); err != nil {
		t.Fatal(err)
	}
	first := published.Await("user.joined", "1")
	published.Await("user.joined", "2")
	greeting := published.Await("user.greeted", "1")
	published.Await("user.greeted", "2")
	if greeting.CausationID != first.ID || greeting.Source != "/mail" {
		t.Errorf("the greeting %s of %s was not caused by %s", greeting.ID, greeting.Source, first.ID)
	}
	raw := quadrilletest.Publish(t, broker, "members", joined{"3"})
	if got := published.Await("user.joined", "3"); got.ID != raw[0].ID {
		t.Errorf("recorded %s, published %s", got.ID, raw[0].ID)
	}
	published.Await("user.greeted", "3")
	stopMembers()
	stopMail()
	published.ExpectNoMore()
	stopMail() // a second time
}

// A private broker and database are killed and the network is cut; everything that was promised
// arrives once.
func TestFaults(t *testing.T) {
	t.Parallel()
	servers := quadrilletest.Private(t)
	broker := servers.VirtualHost(t)
	published := quadrilletest.Record(t, broker, "members")
	network := quadrilletest.NewProxy(t, broker)
	from := members(t, servers.Database(t), network.URL)
	stop := quadrilletest.Run(t, from)
	joins := func(id string) {
		quadrilletest.WaitFor(t, "user "+id+" joins", func() (bool, string) {
			err := join(t.Context(), from, id)
			return err == nil, ""
		})
	}
	joins("1")
	published.Await("user.joined", "1")
	network.Down()
	joins("2")
	network.Up()
	published.Await("user.joined", "2")
	servers.KillRabbitMQ(t)
	joins("3")
	network.Down()
	servers.RestartRabbitMQ(t)
	published.ExpectNoMore() // it records again
	network.Up()
	published.Await("user.joined", "3")
	servers.KillPostgres(t)
	servers.RestartPostgres(t)
	joins("4")
	published.Await("user.joined", "4")
	stop()
	published.ExpectNoMore()
}

// Servers that were given, or that other tests use, are not killed.
func TestSharedServersAreNotKilled(t *testing.T) {
	servers := quadrilletest.Shared(t)
	for _, kill := range []func(testing.TB){servers.KillPostgres, servers.KillRabbitMQ,
		servers.RestartPostgres, servers.RestartRabbitMQ} {
		if why := failing(t, kill); !strings.Contains(why, "quadrilletest.Private") {
			t.Errorf("the failure does not name the way out: %s", why)
		}
	}
}

type runner func(ctx context.Context) error

func (r runner) Run(ctx context.Context) error { return r(ctx) }

// A service that ends by itself fails its test, with or without an error.
func TestRunFailsWhenTheServiceEnds(t *testing.T) {
	t.Parallel()
	for _, err := range []error{nil, errors.New("no heart")} {
		ended := make(chan struct{})
		why := failing(t, func(t testing.TB) {
			quadrilletest.Run(t, runner(func(context.Context) error { defer close(ended); return err }))
			<-ended
			quadrilletest.WaitFor(t, "the failure is reported", func() (bool, string) {
				return t.(*double).count() > 0, ""
			})
		})
		if !strings.Contains(why, "has ended") || err != nil && !strings.Contains(why, "no heart") {
			t.Errorf("error %v: %s", err, why)
		}
	}
	quadrilletest.Run(t, runner(func(ctx context.Context) error { <-ctx.Done(); return nil }))
}
