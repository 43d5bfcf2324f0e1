package quadrille_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// The state of the relay names the leader, and warns of the relay of another service on the same
// database.
func TestRelayStateNamesWhoRelays(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	s := members(t, database(t), broker)
	run(t, s)
	endpoint := httptest.NewServer(s.Admin())
	defer endpoint.Close()
	var state admin.Relay
	quadrilletest.WaitFor(t, "the leader to tell of itself", func() (bool, string) {
		get(t, endpoint.URL+"/admin/relay", "", 200, &state)
		return strings.HasPrefix(state.Leader, "members on ") && len(state.Replicas) == 1 &&
			state.Replicas[0].Leads, state.Leader
	})
	if len(state.Warnings) > 0 {
		t.Errorf("warnings %v", state.Warnings)
	}
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO outbox_relays (id, name, host, pid, keep)
		VALUES (gen_random_uuid(), 'intruder', 'elsewhere', 7, 1)`); err != nil {
		t.Fatal(err)
	}
	get(t, endpoint.URL+"/admin/relay", "", 200, &state)
	if len(state.Warnings) != 1 || !strings.Contains(state.Warnings[0], "the service intruder on "+
		"elsewhere (process 7) has a relay on this database, which belongs to members") {
		t.Errorf("warnings %v", state.Warnings)
	}
}
