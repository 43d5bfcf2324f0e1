package quadrille_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/topology"
)

// Events are held since nobody is bound to their type, one of them quarantined. They are published
// when an operator says that the cause is repaired, and not at their time. Before that they are
// held again.
func TestHeldEventsAreReleased(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	s := members(t, database(t), broker, func(c *quadrille.Config) {
		c.Handlers, c.Mandatory = nil, func(string) bool { return true }
	})
	run(t, s)
	endpoint := httptest.NewServer(s.Admin())
	defer endpoint.Close()
	publish(t, s, UserJoined{"1", "ada@example.com"}, UserJoined{"2", "bob@example.com"},
		UserJoined{"2", "bob@example.org"})
	expect := func(code int, text string, args ...string) {
		t.Helper()
		if got, out := commandLine(t, endpoint.URL, append([]string{"relay"}, args...)...); got != code ||
			!strings.Contains(out, text) {
			t.Errorf("%q: exit %d, want %d and %q:\n%s", args, got, code, text, out)
		}
	}
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	later := func() {
		t.Helper()
		becomes(t, s, 3, "outbox_held")
		if _, err := db.Exec(`UPDATE outbox_held SET due = CASE aggregate
			WHEN '1' THEN now() + interval '1h'
			ELSE 'infinity' END, kind = CASE WHEN kind = 'behind' OR aggregate = '1' THEN kind
			ELSE 'quarantined' END`); err != nil {
			t.Fatal(err)
		}
	}
	later()
	expect(cli.ExitUsage, "name ids, a filter", "release")
	expect(cli.ExitUsage, "no service", "release", "--service", "nobody")
	expect(0, "nothing that is held is selected", "release", "--held-for", "the moon")
	expect(cli.ExitProblems, "members: 0 published, 2 held: ", "release", "--all")
	later()
	if err := quadrille.ApplyTopology(t.Context(), broker, topology.Topology{Name: "club",
		Services: []topology.Service{
			{Name: "members", Commands: []topology.Command{{Does: "join",
				Publishes: []string{"user.joined"}}}},
			{Name: "mail", Reacts: []topology.Reaction{{Handles: "user.joined", Does: "greet"}}},
		}}); err != nil {
		t.Fatal(err)
	}
	expect(0, "members: 2 published, 0 held", "release", "--type", "user.joined")
	becomes(t, s, 0, "outbox_held") // also the one behind
}
