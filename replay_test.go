package quadrille_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

// What is published again on the command line has the same ids and no second effect.
func TestReplayedIsADuplicate(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	s := members(t, database(t), broker)
	run(t, s)
	endpoint := httptest.NewServer(s.Admin())
	defer endpoint.Close()
	publish(t, s, UserJoined{"1", "ada@example.com"}, UserJoined{"2", "bob@example.com"})
	becomes(t, s, 2, "welcomed")
	var history []admin.Event
	get(t, endpoint.URL+"/admin/history/1", "", 200, &history)

	app := cli.App{Name: "members", Topology: topology.Topology{Name: "members",
		Services: []topology.Service{{Name: "members"}}}}
	replay := func(args ...string) (code int, out, errOut string) {
		var o, e bytes.Buffer
		code = cli.Run(t.Context(), app, append([]string{"replay", "-o", "json"}, args...),
			strings.NewReader(""), &o, &e,
			func(name string) (string, bool) { return endpoint.URL, name == "QUADRILLE_MEMBERS_URL" })
		return code, o.String(), e.String()
	}
	for _, c := range []struct {
		args      []string
		published int64
	}{
		{[]string{"members", history[0].ID}, 1},
		{[]string{"members", "--since", "1h"}, 2},
		{[]string{"members", "--since", time.Now().Add(time.Hour).Format(time.RFC3339)}, 0},
	} {
		code, out, errOut := replay(c.args...)
		var done struct{ Replays []admin.Replay }
		err := json.Unmarshal([]byte(out), &done)
		if err != nil || code != 0 || len(done.Replays) != 1 || done.Replays[0].Published != c.published {
			t.Errorf("%v: exit %d, %s %s (%v)", c.args, code, out, errOut, err)
		}
	}
	quadrilletest.WaitFor(t, "all three to come again", func() (bool, string) {
		return s.Stats().Consumer.Duplicates >= 3, fmt.Sprintf("%+v", s.Stats())
	})
	if n := count(t, s, "welcomed"); n != 2 {
		t.Errorf("%d members are welcomed", n)
	}
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"an event that was never said": {[]string{"members", events.NewID()}, cli.ExitNotFound},
		"no id":                        {[]string{"members"}, cli.ExitUsage},
		"both": {[]string{"members", history[0].ID, "--since", "1h"},
			cli.ExitUsage},
		"no such service": {[]string{"nobody", history[0].ID}, cli.ExitUsage},
		"no time":         {[]string{"members", "--since", "yesterday"}, cli.ExitUsage},
	} {
		if code, out, errOut := replay(c.args...); code != c.code || errOut == "" {
			t.Errorf("%s: exit %d, want %d: %s %s", name, code, c.code, out, errOut)
		}
	}
}

// The list of requests to publish again comes in pages, the newest request first.
func TestRepublicationsArePaged(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	s := members(t, database(t), broker)
	run(t, s)
	endpoint := httptest.NewServer(s.Admin())
	defer endpoint.Close()
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const requests = 250
	if _, err := db.ExecContext(t.Context(), `INSERT INTO outbox_replay (since, last_seq, reached,
		ended_at)
		SELECT now(), 0, 0, now() FROM generate_series(1, $1)`, requests); err != nil {
		t.Fatal(err)
	}
	var ids []int64
	pages := 0
	for after := ""; pages == 0 || after != ""; pages++ {
		var page admin.ReplayPage
		get(t, endpoint.URL+"/admin/replay?after="+after, "", 200, &page)
		if n := len(page.Replays); n == 0 || n > 100 || pages > 2 {
			t.Fatalf("page %d has %d requests", pages, n)
		}
		for _, r := range page.Replays {
			ids = append(ids, r.ID)
		}
		after = page.Next
	}
	if len(ids) != requests || !slices.IsSortedFunc(ids,
		func(a, b int64) int { return cmp.Compare(b, a) }) {
		t.Errorf("%d requests in %d pages, want %d, newest first", len(ids), pages, requests)
	}
	var page admin.ReplayPage
	get(t, endpoint.URL+"/admin/replay?limit=1&after=8", "", 200, &page)
	if len(page.Replays) != 1 || page.Replays[0].ID != 7 || page.Next != "7" {
		t.Errorf("the request before 8 is %+v", page)
	}
	for _, bad := range []string{"limit=0", "limit=101", "after=x", "after=-1"} {
		get(t, endpoint.URL+"/admin/replay?"+bad, "", 400, nil)
	}
}
