package quadrille_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

// commandLine runs the command line of members, whose admin endpoint has this address.
func commandLine(t *testing.T, address string, args ...string) (code int, out string) {
	t.Helper()
	app := cli.App{Name: "members", Topology: topology.Topology{Name: "members",
		Services: []topology.Service{{Name: "members"}}}}
	var o, e bytes.Buffer
	code = cli.Run(t.Context(), app, args, strings.NewReader(""), &o, &e,
		func(name string) (string, bool) { return address, name == "QUADRILLE_MEMBERS_URL" })
	return code, o.String() + e.String()
}

// buggy is a service that parks every event, until the bug is repaired.
func buggy(t *testing.T, broker string) (s *quadrille.Service, repaired *atomic.Bool) {
	t.Helper()
	repaired = new(atomic.Bool)
	s = members(t, database(t), broker, func(c *quadrille.Config) {
		c.Handlers = []consumer.Handler{consumer.Handle(
			func(ctx context.Context, tx *sqlx.Tx, e events.Of[UserJoined]) error {
				if !repaired.Load() {
					return consumer.Permanent(fmt.Errorf("no such column in %s", e.ID))
				}
				return welcome(ctx, tx, e)
			})}
	})
	return s, repaired
}

// A bug parks events. A dry run shows that it is still there, and then that it is repaired. Two
// operators redrive the events at the same time: each has its effect once, and each redrive is on
// record once.
func TestParkedEventsAreRedrivenOnce(t *testing.T) {
	t.Parallel()
	const parked = 12
	broker, _ := servertest.Vhost(t)
	s, repaired := buggy(t, broker)
	run(t, s)
	endpoint := httptest.NewServer(s.Admin())
	defer endpoint.Close()
	for n := range parked {
		publish(t, s, UserJoined{fmt.Sprint(n), "ada@example.com"})
	}
	becomes(t, s, parked, "pending WHERE due IS NULL")
	expect := func(code int, text string, args ...string) {
		t.Helper()
		if got, out := commandLine(t, endpoint.URL, args...); got != code ||
			!strings.Contains(out, text) {
			t.Errorf("%q: exit %d, want %d and %q:\n%s", args, got, code, text, out)
		}
	}
	expect(0, "--service members --parked-for 'no such column in' --dry-run", "parked", "groups")
	expect(0, "→ members (parked)", "trace", "1")
	expect(cli.ExitProblems, "12 would fail, such as", "parked", "redrive", "--all", "--dry-run")
	repaired.Store(true)
	expect(0, "12 would succeed, 0 would fail", "parked", "redrive", "--parked-for", "no such column",
		"--dry-run")
	if n := count(t, s, "welcomed"); n != 0 {
		t.Errorf("a dry run has welcomed %d members", n)
	}
	expect(0, "members: 1 redriven", "parked", "redrive", "--subject", "3", "--reason", "first one")
	becomes(t, s, 1, "welcomed")
	var operators sync.WaitGroup
	for range 2 {
		operators.Go(func() {
			if code, out := commandLine(t, endpoint.URL, "parked", "redrive", "--type", "user.joined",
				"--rate", "6", "--reason", "release 1.4.1"); code != 0 {
				t.Errorf("exit %d: %s", code, out)
			}
		})
	}
	operators.Wait()
	becomes(t, s, parked, "welcomed")
	becomes(t, s, 0, "pending")
	expect(0, "→ members +", "trace", "1")
	var page admin.RepairPage
	get(t, endpoint.URL+"/admin/repairs", "", 200, &page)
	if len(page.Repairs) != parked || page.Repairs[0].Reason != "release 1.4.1" ||
		!strings.Contains(page.Repairs[0].Operator, "@") ||
		!strings.Contains(page.Repairs[0].ParkedFor, "no such column") {
		t.Errorf("on record: %+v", page.Repairs)
	}
	expect(0, "first one", "parked", "repairs")
	expect(0, "nothing that is parked is selected", "parked", "redrive", "--all")
	expect(cli.ExitNotFound, "nothing is parked", "parked", "redrive", events.NewID())
	expect(cli.ExitUsage, "name ids, a filter", "parked", "redrive")
	expect(cli.ExitUsage, "not both", "parked", "redrive", events.NewID(), "--all")
	expect(cli.ExitUsage, "no service", "parked", "redrive", "--service", "nobody")
	expect(cli.ExitUsage, "--rate 0", "parked", "redrive", "--all", "--rate", "0")
}

// A discarded event is never handled, also when it is delivered again, and stays on record with its
// bytes. A malformed message cannot be redriven.
func TestDiscardedEventIsNeverHandled(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	s, repaired := buggy(t, broker)
	run(t, s)
	endpoint := httptest.NewServer(s.Admin())
	defer endpoint.Close()
	publish(t, s, UserJoined{"1", "ada@example.com"})
	becomes(t, s, 1, "pending WHERE due IS NULL")
	malformed := quadrille.TestEvent{Exchange: "members.events", RoutingKey: "user.joined",
		Record: events.Record{ID: events.NewID(), Type: "user.joined", Source: "/members",
			Data: []byte("{")}}
	if err := quadrille.PublishTestEvents(t.Context(), broker, malformed); err != nil {
		t.Fatal(err)
	}
	becomes(t, s, 2, "pending WHERE due IS NULL")
	repaired.Store(true)
	var history []admin.Event
	get(t, endpoint.URL+"/admin/history/1", "", 200, &history)
	for _, c := range []struct {
		code int
		text string
		args []string
	}{
		{cli.ExitUsage, "must say why", []string{"discard", history[0].ID}},
		{0, "members: 1 discarded", []string{"discard", history[0].ID, "--service", "members",
			"--reason", "a test"}},
		{cli.ExitNotFound, "nothing is parked", []string{"discard", history[0].ID, "--reason", "twice"}},
		{0, "next: members parked show sha256:", []string{"groups"}},
		{cli.ExitProblems, "1 of 1 events would fail", []string{"redrive", "--all", "--dry-run"}},
		{cli.ExitProblems, "parked discard sha256:", []string{"redrive", "--all"}},
		{0, "members: 1 discarded", []string{"discard", "--all", "--reason", "a partner's test"}},
	} {
		if code, out := commandLine(t, endpoint.URL, append([]string{"parked"}, c.args...)...); code !=
			c.code || !strings.Contains(out, c.text) {
			t.Errorf("%q: exit %d, want %d and %q:\n%s", c.args, code, c.code, c.text, out)
		}
	}
	if _, out := commandLine(t, endpoint.URL, "trace", "1"); !strings.Contains(out,
		"→ members (discarded)") {
		t.Errorf("the trace of a discarded event: %s", out)
	}
	if code, out := commandLine(t, endpoint.URL, "replay", "members", history[0].ID); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	quadrilletest.WaitFor(t, "the discarded event to come again", func() (bool, string) {
		return s.Stats().Consumer.Duplicates > 0, fmt.Sprintf("%+v", s.Stats())
	})
	if n := count(t, s, "welcomed"); n != 0 {
		t.Errorf("a discarded event was handled")
	}
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var body []byte
	if err := db.Get(&body, `SELECT (discarded->>'body')::bytea FROM repairs WHERE key = $1`,
		history[0].ID); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(body) || !strings.Contains(string(body), "ada@example.com") {
		t.Errorf("the record has the body %q", body)
	}
}
