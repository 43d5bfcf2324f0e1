package quadrille_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

// identityOf returns the identity of a service's database, when its consumers have come.
func identityOf(t *testing.T, s *quadrille.Service) string {
	t.Helper()
	quadrilletest.WaitFor(t, "the service consumes", func() (bool, string) {
		return s.Connected(),
			fmt.Sprintf("%+v", s.Stats())
	})
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	identity, err := pg.Identity(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// One service name that runs on two databases is an error of the audit, which names both databases.
// Replicas on one database are not.
func TestAuditFindsAServiceOnTwoDatabases(t *testing.T) {
	t.Parallel()
	broker, manage := servertest.Vhost(t)
	settings := map[string]string{"QUADRILLE_AMQP_URL": broker, "QUADRILLE_MANAGEMENT_URL": manage}
	app := cli.App{Name: "members", Topology: topology.Topology{Name: "members",
		Services: []topology.Service{{
			Name: "members", Reacts: []topology.Reaction{{Handles: "user.joined", Does: "welcome"}},
		}}}}
	conflicts := func() (list []rabbit.Finding, code int) {
		t.Helper()
		var o, e bytes.Buffer
		code = cli.Run(t.Context(), app, []string{"topology", "audit", "-o", "json"},
			strings.NewReader(""), &o, &e,
			func(name string) (string, bool) { value, ok := settings[name]; return value, ok })
		var found []rabbit.Finding
		if err := json.Unmarshal(o.Bytes(), &found); err != nil {
			t.Fatalf("exit %d, %s (%v)", code, e.String(), err)
		}
		for _, f := range found {
			if f.Kind == rabbit.Conflict {
				list = append(list, f)
			}
		}
		return list, code
	}
	consumers := func(want int) {
		t.Helper()
		what := fmt.Sprintf("the broker lists %d consumers", want)
		quadrilletest.WaitFor(t, what, func() (bool, string) {
			var all []struct {
				Queue struct{ Name string } `json:"queue"`
			}
			path := "/api/consumers/" + broker[strings.LastIndex(broker, "/")+1:]
			if err := localrun.Manage(t.Context(), manage, http.MethodGet, path, nil, &all); err != nil {
				return false, err.Error()
			}
			return len(all) == want, fmt.Sprint(all)
		})
	}
	first := database(t)
	one, replica, two := members(t, first, broker), members(t, first, broker),
		members(t, database(t), broker)
	run(t, one)
	run(t, replica)
	here := identityOf(t, one)
	consumers(4) // of the queue and of that of the dead letters
	if found, _ := conflicts(); len(found) > 0 || identityOf(t, replica) != here {
		t.Errorf("two replicas on one database: %+v", found)
	}
	stop := run(t, two)
	there := identityOf(t, two)
	consumers(6)
	found, code := conflicts()
	if len(found) != 2 || code != cli.ExitProblems || here == there {
		t.Fatalf("two databases, %s and %s: exit %d, %+v", here, there, code, found)
	}
	for _, f := range found {
		if !strings.Contains(f.Detail, "database "+here) ||
			!strings.Contains(f.Detail, "database "+there) ||
			!strings.HasPrefix(f.Object, "queue members.") || !strings.Contains(f.Remedy, "virtual host") {
			t.Errorf("%+v does not name both of %s and %s", f, here, there)
		}
	}
	stop()
	consumers(4)
	if found, _ := conflicts(); len(found) > 0 {
		t.Errorf("after the end of the second: %+v", found)
	}
}

// A broker that lists no consumers, since it keeps no statistics, is audited all the same, and the
// audit says what it does not know.
func TestAuditWithoutStatistics(t *testing.T) {
	t.Parallel()
	management := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/consumers/") {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.Write([]byte("[]"))
	}))
	defer management.Close()
	found, err := rabbit.Audit(t.Context(), management.URL, "amqp://a:b@localhost/x",
		topology.Topology{Name: "members"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Object == "consumers" && f.Kind == rabbit.Extra && f.Remedy != "" {
			return
		}
	}
	t.Errorf("found %+v", found)
}
