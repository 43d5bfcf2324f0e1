package quadrille_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/devstack"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/topology"
)

// What is published again on the command line has the same ids and no second effect.
func TestReplayedIsADuplicate(t *testing.T) {
	t.Parallel()
	broker, _ := devstack.Vhost(t)
	s := members(t, database(t), broker)
	run(t, s)
	admin := httptest.NewServer(s.Admin())
	defer admin.Close()
	publish(t, s, UserJoined{"1", "ada@example.com"}, UserJoined{"2", "bob@example.com"})
	becomes(t, s, 2, "welcomed")
	var history []quadrille.PublishedEvent
	get(t, admin.URL+"/admin/history/1", "", 200, &history)

	app := cli.App{Name: "members", Topology: topology.Topology{Name: "members",
		Services: []topology.Service{{Name: "members"}}}}
	replay := func(args ...string) (code int, out, errOut string) {
		var o, e bytes.Buffer
		code = cli.Run(t.Context(), app, append([]string{"replay", "-o", "json"}, args...),
			strings.NewReader(""), &o, &e,
			func(name string) (string, bool) { return admin.URL, name == "QUADRILLE_MEMBERS_URL" })
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
		var done cli.Replay
		if err := json.Unmarshal([]byte(out), &done); err != nil || code != 0 ||
			done.Published != c.published {
			t.Errorf("%v: exit %d, %s %s (%v)", c.args, code, out, errOut, err)
		}
	}
	webtest.Eventually(t, "all three to come again", func() (bool, string) {
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
