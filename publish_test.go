package quadrille_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/topology"
)

func now() time.Time { return time.Now() }

// UserWelcomed is said in the handler.
type UserWelcomed struct{ ID string }

func (UserWelcomed) EventType() string { return "user.welcomed" }
func (u UserWelcomed) Subject() string { return u.ID }

func TestWhatIsRolledBackIsNotPublished(t *testing.T) {
	t.Parallel()
	s := members(t, database(t), webtest.NoBroker)
	no := errors.New("no")
	err := s.Tx(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
		return errors.Join(s.Publish(ctx, tx, UserJoined{"1", "ada@example.com"}), no)
	})
	if !errors.Is(err, no) || count(t, s, "outbox") != 0 {
		t.Errorf("%v, %d rows", err, count(t, s, "outbox"))
	}
	err = s.Tx(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
		return s.Publish(ctx, tx,
			UserWelcomed{"1"})
	})
	if err == nil || !strings.Contains(err.Error(), "may not publish user.welcomed") ||
		count(t, s, "outbox") != 0 {
		t.Errorf("an event that it does not declare: %v", err)
	}
	publish(t, s, UserJoined{"1", "ada@example.com"}, UserJoined{"2", "bob@example.com"})
	if n := count(t, s, "outbox"); n != 2 {
		t.Errorf("%d rows", n)
	}
}

// get asks the admin endpoint and reads its answer.
func get(t *testing.T, url, body string, status int, into any) {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err == nil && into != nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil || response.StatusCode != status {
		t.Fatalf("%s: %s %s, %v", url, response.Status, data, err)
	}
}

// What a handler says is caused by what it handles, and the admin endpoint tells the story.
func TestHistoryOfASubject(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	var s *quadrille.Service
	greet := func(ctx context.Context, tx *sqlx.Tx, e events.Of[UserJoined]) error {
		if e.Data.Email == "" {
			return consumer.Permanent(errors.New("nobody to welcome"))
		}
		return errors.Join(welcome(ctx, tx, e), s.Publish(ctx, tx, UserWelcomed{e.Data.ID}))
	}
	s = members(t, database(t), broker, func(c *quadrille.Config) {
		c.Publishes = append(c.Publishes, UserWelcomed{})
		c.Handlers = []consumer.Handler{consumer.Handle(greet)}
	})
	run(t, s)
	endpoint := httptest.NewServer(s.Admin())
	defer endpoint.Close()
	publish(t, s, UserJoined{"42", "ada@example.com"}, UserJoined{ID: "43"})
	becomes(t, s, 1, "welcomed")
	becomes(t, s, 1, "pending WHERE due IS NULL")
	var history []admin.Event
	get(t, endpoint.URL+"/admin/history/42", "", http.StatusOK, &history)
	if len(history) != 2 || history[1].CausationID != history[0].ID ||
		history[1].CorrelationID != history[0].CorrelationID || history[1].Source != "/members" {
		t.Errorf("story %+v", history)
	}
	var handled []map[string]any
	get(t, endpoint.URL+"/admin/handled", `{"ids":["`+history[0].ID+`","`+events.NewID()+`"]}`,
		http.StatusOK, &handled)
	if len(handled) != 1 {
		t.Errorf("handled %+v", handled)
	}
	var page admin.ParkedPage
	get(t, endpoint.URL+"/admin/parked", "", http.StatusOK, &page)
	parked := page.Parked
	if len(parked) != 1 || parked[0].Type != "user.joined" ||
		!strings.Contains(parked[0].Reason, "nobody to welcome") {
		t.Fatalf("parked %+v", parked)
	}
	get(t, endpoint.URL+"/admin/parked/"+parked[0].ID, "", http.StatusOK, nil)
	var result admin.DryRun
	get(t, endpoint.URL+"/admin/parked/"+parked[0].ID+"/dry-run", "{}", http.StatusOK, &result)
	if !strings.Contains(result.Error, "nobody to welcome") || len(result.Publishes) != 0 {
		t.Errorf("tried %+v", result)
	}
	get(t, endpoint.URL+"/admin/parked/"+events.NewID(), "", http.StatusNotFound, nil)
	for _, bad := range []string{`{`, `{"ids":["1"]}`, `{"ids":["` + strings.Repeat("x", 70<<10) +
		`"]}`} {
		get(t, endpoint.URL+"/admin/handled", bad, http.StatusBadRequest, nil)
	}
}

// An event names its schema with the prefix of the topology, and one of a service alone with the
// service's name.
func TestSchemaHasTheUsersName(t *testing.T) {
	t.Parallel()
	for want, club := range map[string]topology.Topology{
		"urn:members:user.joined:1":   {},
		"urn:club:user.joined:1":      {Name: "club"},
		"urn:club:open:user.joined:1": {Name: "members", Schema: "urn:club:open:"},
	} {
		s := members(t, database(t), webtest.NoBroker,
			func(c *quadrille.Config) { c.Topology = club })
		publish(t, s, UserJoined{"1", "ada@example.com"})
		db, err := s.DB(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var schema string
		if err := db.Get(&schema, `SELECT headers->>'dataschema' FROM outbox`); err != nil ||
			schema != want {
			t.Errorf("schema %q, want %q (%v)", schema, want, err)
		}
	}
}
