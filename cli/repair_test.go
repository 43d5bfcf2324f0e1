package cli_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/topology"
)

// What was repaired before an error is printed, and the error says how far it came.
func TestWhatWasRepairedBeforeAnErrorIsPrinted(t *testing.T) {
	t.Parallel()
	parked := admin.ParkedPage{}
	for n := range 5 {
		parked.Parked = append(parked.Parked, admin.Parked{ID: fmt.Sprint("id-", n), Type: "user.joined"})
	}
	requests := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_ = json.NewEncoder(w).Encode(parked)
			return
		}
		if requests++; requests > 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		var q admin.RepairRequest
		_ = json.NewDecoder(r.Body).Decode(&q)
		_ = json.NewEncoder(w).Encode(admin.Repaired{Done: q.IDs})
	}))
	t.Cleanup(s.Close)
	app := cli.App{Name: "club", Topology: topology.Topology{Name: "club",
		Services: []topology.Service{{Name: "members"}}}}
	var out strings.Builder
	code := cli.Run(t.Context(), app, []string{"parked", "redrive", "--all", "--rate", "3"},
		strings.NewReader(""), &out, &out,
		func(name string) (string, bool) { return s.URL, name == "QUADRILLE_MEMBERS_URL" })
	if code != cli.ExitFailure || !strings.Contains(out.String(), "members: 3 redriven") ||
		!strings.Contains(out.String(), "after 3 of 5 events") {
		t.Errorf("exit %d: %s", code, &out)
	}
}
