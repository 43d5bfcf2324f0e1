package quadrille_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

// pair is a choreography of two services, with the command line of its operator. The second one has
// no broker, so that its queue is not read.
type pair struct {
	*testing.T
	topology      topology.Topology
	members, mail *quadrille.Service
	addresses     map[string]string // by setting
}

func newPair(t *testing.T) *pair {
	t.Helper()
	c := &pair{T: t, addresses: map[string]string{}, topology: topology.Topology{Name: "club",
		Services: []topology.Service{
			{Name: "members", Commands: []topology.Command{{Does: "join",
				Publishes: []string{"user.joined"}}}},
			{Name: "mail", Reacts: []topology.Reaction{{Handles: "user.joined", Does: "greet"}}},
		}}}
	broker, _ := servertest.Vhost(t)
	if err := quadrille.ApplyTopology(t.Context(), broker, c.topology); err != nil {
		t.Fatal(err)
	}
	c.members = members(t, database(t), broker, func(g *quadrille.Config) {
		g.Topology, g.Handlers = c.topology, nil
	})
	c.mail = members(t, database(t), webtest.NoBroker, func(g *quadrille.Config) {
		g.Topology, g.Name, g.Publishes = c.topology, "mail", nil
		g.Handlers = []consumer.Handler{consumer.Handle(
			func(context.Context, *sqlx.Tx, events.Of[UserJoined]) error { return nil })}
	})
	for name, service := range map[string]*quadrille.Service{"MEMBERS": c.members, "MAIL": c.mail} {
		endpoint := httptest.NewServer(service.Admin())
		t.Cleanup(endpoint.Close)
		c.addresses["QUADRILLE_"+name+"_URL"] = endpoint.URL
	}
	return c
}

// where runs the command, and returns its JSON and its text.
func (c *pair) where(subject string) (w admin.Whereabouts, code int, text string) {
	c.Helper()
	code, document := c.run("where", subject, "-o", "json")
	if code == 0 {
		if err := json.NewDecoder(strings.NewReader(document)).Decode(&w); err != nil {
			c.Fatal(err)
		}
	}
	code, text = c.run("where", subject)
	return w, code, text
}

// run runs a command of the operator, and returns what it printed, the data first.
func (c *pair) run(args ...string) (code int, text string) {
	c.Helper()
	var out, notes strings.Builder
	code = cli.Run(c.Context(), cli.App{Name: "club", Topology: c.topology}, args,
		strings.NewReader(""), &out, &notes,
		func(name string) (string, bool) { return c.addresses[name], c.addresses[name] != "" })
	return code, out.String() + notes.String()
}

// gone returns an address at which nothing listens.
func (c *pair) gone() string {
	endpoint := httptest.NewServer(nil)
	endpoint.Close()
	return endpoint.URL
}

// waits waits until a subject waits in one place only, and the text has the next command.
func (c *pair) waits(subject, service string, place admin.Place, next string) {
	c.Helper()
	quadrilletest.WaitFor(c, subject+" waits in "+string(place), func() (bool, string) {
		w, code, text := c.where(subject)
		return code == 0 && len(w.Waiting) == 1 && w.Waiting[0].Place == place &&
			w.Waiting[0].Service == service && strings.Contains(text, next), text
	})
}

func (c *pair) exec(s *quadrille.Service, query string, args ...any) {
	c.Helper()
	db, err := s.DB(c.Context())
	if err == nil {
		_, err = db.Exec(query, args...)
	}
	if err != nil {
		c.Fatal(err)
	}
}

// What waits about a subject is found in every place, with its reason and the next command: in the
// outbox before the relay runs, in the queue of a service that does not, and held by the broker's
// refusal; as a retry, a deadline, a call and parked in the database of the other service.
func TestWhereASubjectIs(t *testing.T) {
	t.Parallel()
	c := newPair(t)
	publish(t, c.members, UserJoined{"1", "ada@example.com"})
	c.waits("1", "members", admin.InOutbox, "club relay show")
	run(t, c.members)
	c.waits("1", "mail", admin.InQueue, "is mail running?")
	for subject, row := range map[string]struct {
		kind, due, text string
		place           admin.Place
	}{
		"2": {"retry", "1h", "no such column", admin.InRetry},
		"3": {"deadline", "1h", "in 59m", admin.OnDeadline},
		"4": {"call", "", "club parked show key of 4", admin.IsParked},
		"5": {"call", "1h", "club breakers", admin.InCall},
	} {
		c.exec(c.mail, `INSERT INTO pending (consumer, owner, key, kind, type, exchange,
			routing_key, attributes, body, attempts, due, reason) VALUES ('mail', 'members', $1, $2,
			'user.joined', 'members.events', 'user.joined', json_build_object('subject', $3::text), '{}', 3,
			now() + nullif($4, '')::interval, 'no such column')`, "key of "+subject, row.kind, subject,
			row.due)
		c.waits(subject, "mail", row.place, row.text)
	}
	publish(t, c.members, UserJoined{"6", "ada@example.com"})
	c.waits("6", "mail", admin.InQueue, "")
	c.exec(c.members, `INSERT INTO outbox_held (seq, aggregate, reason, attempts, due, kind)
		SELECT seq, aggregateid, 'it is too large', 1, 'infinity', 'quarantined' FROM outbox
		WHERE aggregateid = '6'`)
	c.waits("6", "members", admin.Held, "club relay release ")
	publish(t, c.members, UserJoined{"7", "1@example.com"}, UserJoined{"7", "2@example.com"})
	c.exec(c.members, `INSERT INTO outbox_held (seq, aggregate, reason, attempts, due, kind)
		SELECT seq, '7', 'no queue', 1, 'infinity', CASE WHEN payload->>'Email' = '1@example.com'
			THEN 'unroutable' ELSE 'behind' END FROM outbox WHERE aggregateid = '7'`)
	code, document := c.run("relay", "held", "-o", "json")
	var list struct{ Held []admin.HeldEvent }
	err := json.NewDecoder(strings.NewReader(document)).Decode(&list)
	if err != nil || code != 0 || len(list.Held) != 2 || list.Held[0].Kind != "quarantined" ||
		list.Held[1].Subject != "7" || list.Held[1].Behind != 1 {
		t.Errorf("exit %d, held: %s (%v)", code, document, err)
	}
	if _, text := c.run("relay", "held"); !strings.Contains(text, "club relay release ") {
		t.Errorf("relay held: %s", text)
	}
	if _, code, text := c.where("nobody"); code != cli.ExitNotFound {
		t.Errorf("exit %d: %s", code, text)
	}
	// Of a service that is away, only the last event for it is in question.
	publish(t, c.members, UserJoined{"1", "bob@example.com"})
	c.addresses["QUADRILLE_MAIL_URL"] = c.gone()
	quadrilletest.WaitFor(t, "the queue of the service that is away", func() (bool, string) {
		code, text := c.run("where", "1")
		return code == cli.ExitPartial && strings.Count(text, "mail does not answer; it may have") == 1 &&
			strings.Contains(text, "is mail running?"), text
	})
}
