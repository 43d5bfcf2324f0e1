package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/topology"
)

// club has two services: one answers every request with a body, and the other is away.
func club(t *testing.T, body string) func(args ...string) (code int, out, errOut string) {
	t.Helper()
	here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/admin/parked/none" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(here.Close)
	away := httptest.NewServer(nil)
	away.Close()
	urls := map[string]string{"QUADRILLE_HERE_URL": here.URL, "QUADRILLE_AWAY_URL": away.URL}
	app := cli.App{Name: "club", Topology: topology.Topology{Name: "club",
		Services: []topology.Service{{Name: "away"}, {Name: "here"}}}}
	return func(args ...string) (int, string, string) {
		var out, errOut bytes.Buffer
		code := cli.Run(t.Context(), app, args, strings.NewReader(""), &out, &errOut,
			func(name string) (string, bool) { value, ok := urls[name]; return value, ok })
		return code, out.String(), errOut.String()
	}
}

// What answers is shown, and what does not is named, on standard error and in JSON.
func TestOneServiceAwayHidesNoOther(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"parked list": {`{"parked":[{"id":"i-1","type":"user.joined","size":7}]}`, "i-1"},
		"relay show":  {`{"source":"window","wanted":"window"}`, "window"},
		"breakers":    {`[{"name":"provider","state":"closed"}]`, "provider"},
		"trace 1": {`[{"id":"i-1","type":"user.joined","time":"2026-01-02T15:04:05Z"}]`,
			"user.joined"},
		"parked show i": {`{"id":"i-1"}`, "i-1"},

		"relay use window away here": {`{"source":"window","wanted":"window"}`, "window"},
	} {
		run := club(t, c.body)
		want := cli.ExitPartial
		if name == "parked show i" {
			want = 0 // it has been found
		}
		code, out, errOut := run(strings.Fields(name)...)
		if code != want || !strings.Contains(out, c.want) || want != 0 &&
			!strings.Contains(errOut, "away") {
			t.Errorf("%s: exit %d, %s, %s", name, code, out, errOut)
		}
		code, out, errOut = run(append(strings.Fields(name), "-o", "json")...)
		var document struct {
			Missing []struct{ Service, Error string }
		}
		err := json.Unmarshal([]byte(out), &document)
		if code != want || err != nil || want != 0 && (len(document.Missing) != 1 ||
			document.Missing[0].Service != "away") {
			t.Errorf("%s as JSON: exit %d, %s, %s (%v)", name, code, out, errOut, err)
		}
	}
	if code, _, errOut := club(t, "")("parked", "show", "none"); code != cli.ExitPartial {
		t.Errorf("not found in part: exit %d, %s", code, errOut)
	}
}

// An answer above the bound is an error that says so, and not a cut one.
func TestAnAnswerIsNotCut(t *testing.T) {
	t.Parallel()
	code, _, errOut := club(t, `[{"name":"`+strings.Repeat("x", 33<<20)+`"}]`)("breakers")
	if code == 0 || !strings.Contains(errOut, "more than 33554432 bytes") {
		t.Errorf("exit %d, %.300s", code, errOut)
	}
}

// A story with as many events as a service tells may have more, and the reader is told so.
func TestTraceThatIsCutSaysSo(t *testing.T) {
	t.Parallel()
	steps := func(n int) string {
		var list []string
		for i := range n {
			list = append(list,
				fmt.Sprintf(`{"id":"i-%d","type":"user.joined","time":"2026-01-02T15:04:05Z"}`, i))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	for n, cut := range map[int]bool{999: false, 1000: true} {
		_, out, errOut := club(t, steps(n))("trace", "1")
		if strings.Contains(out, "here has published more about it") != cut {
			t.Errorf("%d events: cut is told %t\n%s", n, !cut, errOut)
		}
		if !strings.Contains(errOut, "\n  are the services running?\n") {
			t.Errorf("the hint has no line of its own: %s", errOut)
		}
	}
}

// A mistake is an error that names the flag or the argument.
func TestMistakesAreNamed(t *testing.T) {
	t.Parallel()
	run := club(t, `[]`)
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("# fine\n\nexport A='b'\nexport B\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, says string }{
		{"breakers --env-file " + nowhere, "--env-file"},
		{"breakers --env-file " + broken, "line 4 is not NAME='value'"},
		{"breakers -o yaml", "table or json"},
		{"trace -5", "not negative"},
		{"parked list --limit -1", "--limit"},
		{"replay here --since -1h", "--since"},
		{"replay here --since 0s", "--since"},
		{"publish", "publish: TYPE is missing"},
		{"dance", "dance"},
	} {
		if code, out, errOut := run(strings.Fields(c.args)...); code != cli.ExitUsage ||
			!strings.Contains(errOut, c.says) || out != "" {
			t.Errorf("%s: exit %d, %s, %s", c.args, code, out, errOut)
		}
	}
}

// A replica that is stopped holds up no command for long, and a write reaches one replica alone.
func TestAStoppedReplicaIsPassedBy(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	stopped := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter,
		*http.Request) {
		<-release
	}))
	t.Cleanup(stopped.Close)
	t.Cleanup(func() { close(release) })
	var writes atomic.Int32
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			writes.Add(1)
		}
		_, _ = w.Write([]byte(`[]`))
	}))
	t.Cleanup(good.Close)
	env := &cli.Env{Fixed: map[string]string{"QUADRILLE_CLUB_URL": stopped.URL, "QUADRILLE_TOKEN": "t",
		"QUADRILLE_CLUB_URLS": stopped.URL + "," + good.URL}}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		var list []any
		if err := env.Call(t.Context(), "club", method, "/admin/things", nil, map[string]int{"n": 1},
			&list); err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
	if n := writes.Load(); n != 1 {
		t.Errorf("%d writes", n)
	}
}
