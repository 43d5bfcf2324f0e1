package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/topology"
)

// The notes of a trace are in one column, however deep the tree is.
func TestTraceHasColumns(t *testing.T) {
	t.Parallel()
	var steps []admin.Step
	for i := range 9 {
		steps = append(steps, admin.Step{ID: fmt.Sprint(i), CausationID: fmt.Sprint(i - 1),
			Type: "ticket.sold", Service: "here"})
	}
	var out bytes.Buffer
	cli.NewText(&out).Trace("  ", admin.Trace{Subject: "x", Steps: steps})
	column := -1
	for line := range strings.Lines(out.String()) {
		at := len([]rune(line[:max(0, strings.Index(line, "here"))]))
		if column > 0 && at != column {
			t.Errorf("column %d instead of %d:\n%s", at, column, out.String())
		}
		column = at
	}
}

// hostile has one of each kind of character that a terminal obeys or does not show, or that forges
// a line.
const hostile = "\x1b[31m\x1b]0;title\a\r\nFAKE " +
	"LINE\t\x7f\u009b2J\u202eabc\u2066\u200b\u2028\u2029\ufeff\U000e0041\x00"

// clean fails when anything but text and the program's own ends of lines is in an output, or
// a stranger's line begins one.
func clean(t *testing.T, output string) {
	t.Helper()
	for _, line := range strings.Split(output, "\n") {
		if cli.Visible(line) != line {
			t.Errorf("a terminal would obey %q", line)
		}
		if strings.HasPrefix(line, "FAKE") {
			t.Errorf("a line is forged: %q", line)
		}
	}
}

// Each way of writing for a person escapes what its values hold, and JSON keeps their meaning.
func TestForeignTextIsEscaped(t *testing.T) {
	t.Parallel()
	for _, print := range []func(*cli.Text){
		func(t *cli.Text) {
			t.Printf("%s %v %-5s %v\n", hostile, []byte(hostile), hostile, json.RawMessage(hostile))
		},
		func(t *cli.Text) { t.Printf("%v %v\n", errors.New(hostile), map[string]any{hostile: hostile}) },
		func(t *cli.Text) { t.Lines("  ", hostile+"\n"+hostile) },
		func(t *cli.Text) {
			t.Table("A\tB",
				func(row func(...any)) { row(hostile, "\xff\xfe", hostile) })
		},
		func(t *cli.Text) {
			t.Trace("", admin.Trace{Subject: hostile, Steps: []admin.Step{{Type: hostile, Service: hostile,
				Data: json.RawMessage(`{"reason":"\u001b[31m\r\nFAKE"}`)}}})
		},
	} {
		var out bytes.Buffer
		print(cli.NewText(&out))
		clean(t, out.String())
	}
	var out bytes.Buffer
	env := cli.Env{Output: "json", Out: &out}
	if err := env.Print(map[string]string{"is": hostile}, nil); err != nil {
		t.Fatal(err)
	}
	clean(t, out.String())
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["is"] != hostile {
		t.Errorf("JSON says %q (%v)", back["is"], err)
	}
}

// An error may have a stranger's words, too.
func TestForeignTextInErrorsIsEscaped(t *testing.T) {
	t.Parallel()
	app := cli.App{Name: "club", Topology: topology.Topology{Name: "club"},
		Commands: func(*cli.Env) []*cobra.Command {
			return []*cobra.Command{{Use: "fail", RunE: func(*cobra.Command, []string) error {
				return cli.Error{Code: 5, Err: fmt.Errorf("the service answers: %s", hostile), Next: "see club"}
			}}}
		}}
	for _, args := range [][]string{{"fail"}, {hostile}, {"fail", hostile}, {"-o", hostile, "fail"},
		{"--" + hostile}} {
		var out, errOut bytes.Buffer
		code := cli.Run(context.Background(), app, args, strings.NewReader(""), &out, &errOut,
			func(string) (string, bool) { return "", false })
		if code == 0 || errOut.Len() == 0 {
			t.Errorf("%q: exit %d, %q", args, code, errOut.String())
		}
		clean(t, out.String()+errOut.String())
	}
}

// A terminal obeys nothing that a service says about what waits, about its relay or about causes.
func TestForeignTextOfEveryViewIsEscaped(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(hostile)
	if err != nil {
		t.Fatal(err)
	}
	event := fmt.Sprintf(`{"id":%[1]s,"type":%[1]s,"data":{"reason":%[1]s}}`, text)
	answers := map[string]string{
		"/admin/history/": "[" + event + "]", "/admin/events/": event,
		"/admin/waiting/": fmt.Sprintf(`[{"place":"parked","id":%[1]s,"type":%[1]s,"reason":%[1]s},
			{"place":"deadline","id":"d","type":%[1]s,"due":"2026-01-02T15:04:05Z"}]`, text),
		"/admin/relay": fmt.Sprintf(`{"source":%[1]s,"wanted":%[1]s,"leader":%[1]s,"warnings":[%[1]s]}`,
			text),
	}
	for _, words := range []string{"where x", "why x", "trace x", "relay show"} {
		code, out, errOut := one(t, func(w http.ResponseWriter, r *http.Request) {
			answer := "[]"
			for path, is := range answers {
				if strings.HasPrefix(r.URL.Path, path) {
					answer = is
				}
			}
			_, _ = w.Write([]byte(answer))
		}, strings.Fields(words)...)
		if code != 0 {
			t.Errorf("%s: exit %d, %s", words, code, errOut)
		}
		clean(t, out+errOut)
	}
}
