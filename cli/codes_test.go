package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/topology"
)

// one is a command line about a single service, which a handler plays.
func one(t *testing.T, service http.HandlerFunc, args ...string) (code int, out, errOut string) {
	t.Helper()
	server := httptest.NewServer(service)
	defer server.Close()
	app := cli.App{Name: "club", List: "tickets", Ends: []string{"ticket.used"},
		Topology: topology.Topology{Name: "club", Services: []topology.Service{{Name: "here"}}}}
	var o, e bytes.Buffer
	code = cli.Run(t.Context(), app, args, strings.NewReader(""), &o, &e,
		func(name string) (string, bool) { return server.URL, name == "QUADRILLE_HERE_URL" })
	return code, o.String(), e.String()
}

// The exit code tells what a service has answered, also where all services are asked and none has
// what is asked for. The service's own words are printed, but a terminal obeys none of them.
func TestExitCodeTellsWhatWasAnswered(t *testing.T) {
	t.Parallel()
	problem, err := json.Marshal(map[string]string{"title": "no", "detail": "because " + hostile})
	if err != nil {
		t.Fatal(err)
	}
	for status, want := range map[int]int{
		http.StatusBadRequest: cli.ExitUsage, http.StatusNotFound: cli.ExitNotFound,
		http.StatusServiceUnavailable: cli.ExitUnreachable,
		http.StatusConflict:           cli.ExitFailure, http.StatusInternalServerError: cli.ExitFailure,
	} {
		// of all services, and of one
		for _, args := range []string{"breakers", "relay use window here"} {
			code, out, errOut := one(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = w.Write(problem)
			}, strings.Fields(args)...)
			if code != want || !strings.Contains(errOut, "here answers "+strconv.Itoa(status)+": because") {
				t.Errorf("%s, which is answered %d: exit %d, want %d\n%s%s", args, status, code, want, out,
					errOut)
			}
			clean(t, out+errOut)
		}
	}
}

// What is refused or held was not published again, and that is a problem.
func TestWhatWasNotPublishedAgainIsAProblem(t *testing.T) {
	t.Parallel()
	for counts, want := range map[string]int{
		`"published":3`:              0,
		`"published":2,"refused":1`:  cli.ExitProblems,
		`"published":2,"held":1`:     cli.ExitProblems,
		`"refused":1,"reason":"why"`: cli.ExitProblems,
	} {
		code, out, errOut := one(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				_, _ = w.Write([]byte(`{"id":7}`))
				return
			}
			_, _ = fmt.Fprintf(w, `{"replays":[{"id":6},{"id":7,"ended_at":"2026-01-02T15:04:05Z",%s}]}`,
				counts)
		}, "replay", "here", "--since", "1h")
		if code != want || strings.Contains(counts, "why") != strings.Contains(errOut, "why") {
			t.Errorf("%s: exit %d, want %d\n%s%s", counts, code, want, out, errOut)
		}
	}
}

// What is parked is asked for in pages, up to the limit and no further, and what is beyond it is
// told.
func TestParkedIsListedUpToTheLimit(t *testing.T) {
	t.Parallel()
	const parked = 2500
	for limit, want := range map[int]struct {
		listed int
		pages  []string // by their sizes
		more   bool
	}{
		0:    {parked, []string{"1000", "1000", "1000"}, false},
		1:    {1, []string{"1"}, true},
		1500: {1500, []string{"1000", "500"}, true},
		2500: {parked, []string{"1000", "1000", "500"}, false},
		9000: {parked, []string{"1000", "1000", "1000"}, false},
	} {
		var pages []string
		code, out, errOut := one(t, func(w http.ResponseWriter, r *http.Request) {
			size, _ := strconv.Atoi(r.URL.Query().Get("limit"))
			after, _ := strconv.Atoi(r.URL.Query().Get("after")) // nothing: the first page
			pages = append(pages, strconv.Itoa(size))
			page, next := []admin.Parked{}, ""
			for i := after; i < min(after+size, parked); i++ {
				page = append(page, admin.Parked{ID: strconv.Itoa(i)})
			}
			if after+size < parked {
				next = strconv.Itoa(after + size)
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"parked": page, "next": next})
		}, "parked", "list", "-o", "json", "--limit", strconv.Itoa(limit))
		var list admin.ParkedList
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
			t.Fatalf("limit %d: exit %d, %v\n%s", limit, code, err, errOut)
		}
		if len(list.Parked) != want.listed || !slices.Equal(pages, want.pages) {
			t.Errorf("limit %d: %d events in pages of %s, want %d in %s", limit, len(list.Parked), pages,
				want.listed, want.pages)
		}
		if more := slices.Equal(list.More, []string{"here"}); more != want.more ||
			more != strings.Contains(errOut, "more is parked at here") {
			t.Errorf("limit %d: more is told %q, %s", limit, list.More, errOut)
		}
	}
}

// An exploration that found something, or did not come to its end, is a problem.
func TestExplorationThatFailsIsAProblem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		checked cli.Checked
		code    int
	}{
		{cli.Checked{States: 7, Complete: true}, 0},
		{cli.Checked{States: 7, Complete: true, Violations: 1}, cli.ExitProblems},
		{cli.Checked{States: 7}, cli.ExitProblems},
	} {
		app := cli.App{Name: "club", Check: func() (cli.Checked, error) { return c.checked, nil }}
		var out, errOut bytes.Buffer
		code := cli.Run(t.Context(), app, []string{"check"}, strings.NewReader(""), &out, &errOut,
			func(string) (string, bool) { return "", false })
		if code != c.code || !strings.Contains(out.String(), "7 states") {
			t.Errorf("%+v: exit %d, %s%s", c.checked, code, out.String(), errOut.String())
		}
	}
}
