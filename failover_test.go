//go:build cluster

package quadrille_test

import (
	"context"
	"errors"
	"fmt"
	neturl "net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// impatience is how long a client of the service waits for its transaction. A commit that waits for
// a standby takes longer.
const impatience = 300 * time.Millisecond

// clients publish events with consecutive numbers, and remember the answers.
type clients struct {
	service *quadrille.Service

	mu           sync.Mutex
	next         int
	acknowledged []string
	unknown      int // the outcome of a commit
}

// run publishes until ctx is done.
func (c *clients) run(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.mu.Lock()
		c.next++
		id := strconv.Itoa(c.next)
		c.mu.Unlock()
		one, cancel := context.WithTimeout(context.Background(), impatience)
		err := c.service.Tx(one, func(ctx context.Context, tx *sqlx.Tx) error {
			return c.service.Publish(ctx, tx, UserJoined{ID: id, Email: id})
		})
		cancel()
		c.mu.Lock()
		if err == nil {
			c.acknowledged = append(c.acknowledged, id)
		} else if errors.Is(err, pg.ErrUnknownOutcome) {
			c.unknown++
		}
		c.mu.Unlock()
	}
}

// await waits until so many more events are acknowledged, or attempted.
func (c *clients) await(t *testing.T, what string, acknowledged, attempted int) {
	t.Helper()
	c.mu.Lock()
	acknowledged, attempted = acknowledged+len(c.acknowledged), attempted+c.next
	c.mu.Unlock()
	quadrilletest.WaitFor(t, what, func() (bool, string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.acknowledged) >= acknowledged && c.next >= attempted, fmt.Sprintf(
			"%d of %d acknowledged, %d unknown", len(c.acknowledged), c.next, c.unknown)
	})
}

// The network to the synchronous standby fails, then the primary crashes, and the standby is
// promoted. Clients give up while the primary waits for the standby, and for these commits it would
// report a success if they were cancelled.
func TestPromotedStandbyHasAllThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	primary := servertest.PrivatePostgres(t)
	server, err := pg.Open(primary.PostgresURL)
	if err != nil {
		t.Fatal(err)
	}
	_, err = server.Exec(`CREATE DATABASE members`)
	if err := errors.Join(err, server.Close()); err != nil {
		t.Fatal(err)
	}
	network := quadrilletest.NewProxy(t, primary.PostgresURL)
	standby := servertest.NewStandby(t, primary.PostgresURL, network.URL)
	broker, _ := servertest.Vhost(t)
	s := members(t, hostsOf(t, primary.PostgresURL, standby.PostgresURL), broker)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	all := &clients{service: s}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() { all.run(ctx) })
	}
	defer running.Wait()
	defer stop()
	all.await(t, "traffic with a standby", 200, 0)
	network.Down()
	all.await(t, "clients give up", 0, 40)
	if err := primary.KillPostgres(); err != nil {
		t.Fatal(err)
	}
	standby.Promote(t)
	all.await(t, "traffic on the promoted standby", 200, 0)
	stop()
	running.Wait()

	quadrilletest.WaitFor(t, "every event is handled", func() (bool, string) {
		missing := count(t, s, `outbox WHERE id NOT IN (SELECT event_id FROM welcomed)`)
		return missing == 0, fmt.Sprint(missing, " are not")
	})
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var welcomed []string
	if err := db.Select(&welcomed, `SELECT email FROM welcomed`); err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for _, id := range welcomed {
		if times[id]++; times[id] > 1 {
			t.Errorf("event %s has %d effects", id, times[id])
		}
	}
	for _, id := range all.acknowledged {
		if times[id] == 0 {
			t.Errorf("event %s was acknowledged and is lost", id)
		}
	}
	if n := count(t, s, `welcomed WHERE event_id NOT IN (SELECT id FROM outbox)`); n != 0 {
		t.Errorf("%d events were handled and never committed", n)
	}
	if all.unknown == 0 {
		t.Error("no commit had an unknown outcome: the standby was not waited for")
	}
	t.Logf("%d acknowledged, %d unknown, %d effects", len(all.acknowledged), all.unknown,
		len(welcomed))
}

// hostsOf returns the address of the database members on two servers with the same users.
func hostsOf(t *testing.T, first, second string) string {
	t.Helper()
	a, err := neturl.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	b, err := neturl.Parse(second)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("postgres://%s@%s,%s/members?sslmode=disable&target_session_attrs=read-write",
		a.User, a.Host, b.Host)
}
