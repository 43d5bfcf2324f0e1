package quadrille_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/topology"
)

// starting puts a server before a database that says "the database system is starting up" to the
// first who connects, as PostgreSQL does after a crash, and lets all others through.
func starting(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	there := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	u.Host = l.Addr().String()
	go func() {
		for first := true; ; first = false {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if first {
				refuse(c)
				continue
			}
			server, err := net.Dial("tcp", there)
			if err != nil {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(server, c); _ = server.Close() }()
			go func() { _, _ = io.Copy(c, server); _ = c.Close() }()
		}
	}()
	return u.String()
}

// refuse reads a start-up message and answers with 57P03, in the frontend/backend protocol of
// PostgreSQL.
func refuse(c net.Conn) {
	defer func() { _ = c.Close() }()
	var size uint32
	if binary.Read(c, binary.BigEndian, &size) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c, int64(size)-4)
	fields := "SFATAL\x00C57P03\x00Mthe database system is starting up\x00\x00"
	answer := binary.BigEndian.AppendUint32([]byte("E"), uint32(len(fields)+4))
	_, _ = c.Write(append(answer, fields...))
}

// A database that is starting is waited for: nothing is wrong with the settings of the service.
func TestDatabaseThatIsStartingIsNoMistake(t *testing.T) {
	t.Parallel()
	s := members(t, starting(t, database(t)), webtest.NoBroker)
	if err := s.Open(t.Context()); err == nil || errors.Is(err, quadrille.ErrMisconfigured) {
		t.Errorf("error %v", err)
	}
	if err := s.Open(t.Context()); err != nil {
		t.Error(err)
	}
}

// UserReminded is a deadline that welcoming sets.
type UserReminded struct{ ID string }

func (UserReminded) EventType() string { return "user.reminded" }
func (u UserReminded) Subject() string { return u.ID }

// To try a parked event that would set a deadline tells so.
func TestDryRunShowsADeadline(t *testing.T) {
	t.Parallel()
	remind := consumer.Participant[struct{}]{Name: "members", Locks: func(*struct{}, events.Event) {},
		React: []consumer.Reaction[struct{}]{
			consumer.On(func(_ *struct{}, e events.Of[UserJoined]) (consumer.Effects, error) {
				return consumer.Schedule(time.Hour, UserReminded{e.Data.ID}), nil
			}),
			consumer.On(func(*struct{}, events.Of[UserReminded]) (consumer.Effects,
				error) {
				return consumer.Effects{}, nil
			}),
		}}
	club := topology.Topology{Name: "club", Services: []topology.Service{{
		Name: "members", Commands: []topology.Command{{Does: "join", Publishes: []string{"user.joined"}},
			{Does: "remind again", Type: "user.reminded", After: time.Hour}},
		Reacts: []topology.Reaction{{Handles: "user.joined", Does: "remind"}},
	}}}
	s := members(t, database(t), webtest.NoBroker, func(c *quadrille.Config) {
		c.Handlers, c.Topology = []consumer.Handler{remind.Handler()}, club
	})
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := events.NewID()
	if _, err := db.Exec(`INSERT INTO pending (consumer, owner, key, type, exchange, routing_key,
		attributes, body, attempts, reason)
		VALUES ('members', 'members', $1, 'user.joined', 'members.events', 'user.joined',
			json_build_object('id', $1::text, 'type', 'user.joined'),
			'{"ID":"1","Email":"ada@example.com"}', 1, 'a mistake')`, id); err != nil {
		t.Fatal(err)
	}
	endpoint := httptest.NewServer(s.Admin())
	t.Cleanup(endpoint.Close)
	var result admin.DryRun
	get(t, endpoint.URL+"/admin/parked/"+id+"/dry-run", "{}", http.StatusOK, &result)
	if result.Error != "" || len(result.Publishes) != 1 ||
		result.Publishes[0].Type != "user.reminded" || result.Publishes[0].Due == nil ||
		result.Publishes[0].Due.Sub(result.Publishes[0].Time) != time.Hour {
		t.Errorf("tried %+v", result)
	}
}
