package cli_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/topology"
)

// fair is a choreography of two services, with a command of its own that has flags.
func fair() cli.App {
	return cli.App{Name: "fair", Start: "open", List: "tickets",
		Topology: topology.Topology{Name: "fair", Services: []topology.Service{{Name: "gate"},
			{Name: "wheel"}}},
		Commands: func(e *cli.Env) []*cobra.Command {
			c := &cobra.Command{Use: "sell TICKET PRICE", Example: "  fair sell child 5   # cheap",
				Args: cobra.ExactArgs(2), RunE: func(*cobra.Command, []string) error {
					e.Notef("sold")
					return nil
				}}
			c.Flags().Int64("amount", 1, "how many")
			c.Flags().Duration("valid", time.Hour, "for how long")
			c.Flags().Bool("card", false, "a card pays")
			c.Flags().String("till", "", "which till")
			c.Flags().String("seller", "", "who sells")
			for _, name := range []string{"till", "seller"} {
				if err := c.MarkFlagRequired(name); err != nil {
					panic(err)
				}
			}
			return []*cobra.Command{c}
		}}
}

// with runs a command line of an app with these settings.
func with(t *testing.T, app cli.App, settings map[string]string,
	args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = cli.Run(t.Context(), app, args, strings.NewReader(""), &o, &e,
		func(name string) (string, bool) { value, ok := settings[name]; return value, ok })
	return code, o.String(), e.String()
}

// A mistake in the words of a command names the command and what is wanted, in plain words, and
// shows how the command is used. No text of a library is printed.
func TestMistakesInWordsArePlain(t *testing.T) {
	t.Parallel()
	technical := regexp.MustCompile(`strconv|arg\(s\)|pars|shorthand|invalid argument|flag\(s\)`)
	for words, want := range map[string]string{
		"sell":                    "sell: TICKET and PRICE are missing",
		"sell child":              "sell: PRICE is missing",
		"sell child 5":            "sell: --seller and --till are missing",
		"sell child 5 6":          `sell: "6" is one argument too many: it takes TICKET PRICE`,
		"sell child 5 --amount x": `sell: --amount "x": want a whole number`,
		"sell a 5 --amount 9999999999999999999": `sell: --amount "9999999999999999999": want a ` +
			`whole number that is not so large`,
		"sell child 5 --valid 7":       `sell: --valid "7": want a duration such as 90s or 15m`,
		"sell child 5 --card=maybe":    `sell: --card "maybe": want true or false`,
		"sell child 5 --amuont 3":      "sell: there is no flag --amuont: did you mean --amount?",
		"sell child 5 --nothing":       "sell: there is no flag --nothing",
		"sell child 5 -z":              "sell: there is no flag -z",
		"sell child 5 --till":          "sell: --till needs a value: which till",
		"sell child -5":                "sell: -5: its arguments are not negative",
		"version x":                    `version: it takes no arguments, and "x" is one`,
		"relay use":                    "relay use: window|stream and SERVICE are missing",
		"relay use river gate":         `relay use: "river" is no source: want window or stream`,
		"relay use window gat":         "there is no service \"gat\": the services are gate, wheel",
		"replay gat --since 1h":        "there is no service \"gat\": the services are gate, wheel",
		"parked show x --service gat":  "there is no service \"gat\": the services are gate, wheel",
		"parked redrive --service gat": "there is no service \"gat\": the services are gate, wheel",
		"parked list --limit -1":       "parked list: --limit -1",
		"help nowhere":                 `"nowhere" is no command of fair`,
		"completion tcsh":              `"tcsh" is no command of completion`,
		"-o":                           "--output needs a value",
	} {
		code, out, errOut := with(t, fair(), nil, strings.Fields(words)...)
		if code != cli.ExitUsage || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit %d, want %q\n%s%s", words, code, want, out, errOut)
		}
		if technical.MatchString(errOut) || !strings.Contains(errOut, "  see: fair ") {
			t.Errorf("%s: the words are those of a library, or no help is named:\n%s", words, errOut)
		}
		if strings.HasPrefix(words, "sell") && !strings.Contains(errOut,
			"  usage: fair sell TICKET PRICE [flags]\n  for example: fair sell child 5\n") {
			t.Errorf("%s: no usage or no example:\n%s", words, errOut)
		}
	}
	if code, _, errOut := with(t, fair(), nil, "trace", " "); code != cli.ExitUsage ||
		!strings.Contains(errOut, "trace: argument 1 is empty") {
		t.Errorf("an empty argument: exit %d, %s", code, errOut)
	}
}

// Hints and help name the program as it was started, which a shell finds again.
func TestHintsNameTheProgramAsItWasStarted(t *testing.T) {
	t.Parallel()
	app := fair().StartedAs("./bin/fair")
	for words, want := range map[string]string{
		"sell":                  "for example: ./bin/fair sell child 5\n  see: ./bin/fair sell --help\n",
		"parked list":           "start them with: ./bin/fair open\n",
		"trace --help":          "./bin/fair trace SUBJECT [flags]",
		"publish --help":        "\n  ./bin/fair publish TYPE --dry-run -o json\n",
		"topology apply --help": "QUADRILLE_AMQP_URL=amqp://operator:secret@broker/ ./bin/fair topology",
	} {
		_, out, errOut := with(t, app, nil, strings.Fields(words)...)
		if !strings.Contains(out+errOut, want) {
			t.Errorf("%s: want %q\n%s%s", words, want, out, errOut)
		}
	}
	if _, out, _ := with(t, app, nil, "completion", "bash"); strings.Contains(out, "bin/fair") ||
		!strings.Contains(out, "__start_fair") {
		t.Error("the completion is for a path instead of the program, or is not written")
	}
}

// A setting that cannot be right is named, with the form that is wanted and the file that has it,
// and without the password in it.
func TestWrongSettingsAreNamed(t *testing.T) {
	t.Parallel()
	const http, amqp = "http://127.0.0.1:8081", "amqp://user:password@host:5672/"
	for _, c := range []struct{ name, value, words, want string }{
		{"QUADRILLE_GATE_URL", "ftp://u:hush@h", "parked list",
			`its scheme is "ftp"; want an address such as ` + http},
		{"QUADRILLE_GATE_URL", "h:8081/hush", "breakers", "want an address such as " + http},
		{"QUADRILLE_GATE_URL", "hush", "breakers", "it is not a URL; want an address such as " + http},
		{"QUADRILLE_GATE_URL", "http://:8081/hush", "breakers", "it has no host"},
		{"QUADRILLE_GATE_URL", "http://h:8081/hush ", "breakers", "it has white space around its value"},
		{"QUADRILLE_GATE_URL", "http://h:%zz/hush", "breakers", "it is not a URL"},
		{"QUADRILLE_GATE_URLS", "http://h, http://i", "breakers", "white space is around an address"},
		{"QUADRILLE_GATE_URLS", "http://h,ftp://hush", "breakers", `its scheme is "ftp"`},
		{"QUADRILLE_TOKEN", "hush hush", "breakers", "want one word"},
		{"QUADRILLE_TOKEN", "hush\n", "breakers", "it has white space around its value"},
		{"QUADRILLE_AMQP_URL", "http://u:hush@h", "topology apply",
			`its scheme is "http"; want an address such as ` + amqp},
		{"QUADRILLE_AMQP_URL", "amqp://u:hush@h\n", "topology apply",
			"it has white space around its value"},
		{"QUADRILLE_AMQP_URL", "amqp://h,hush", "topology apply", "it is not a URL"},
		{"QUADRILLE_MANAGEMENT_URL", "amqp://u:hush@h", "topology audit",
			`its scheme is "amqp"; want an address such as http://user:password@host:15672`},
	} {
		settings := map[string]string{"QUADRILLE_GATE_URL": "http://127.0.0.1:1",
			"QUADRILLE_WHEEL_URL": "http://127.0.0.1:1"}
		settings[c.name] = c.value
		code, _, errOut := with(t, fair(), settings, strings.Fields(c.words)...)
		if !strings.Contains(errOut, c.name+": ") || !strings.Contains(errOut, c.want) ||
			strings.Contains(errOut, "hush") || code != cli.ExitUsage {
			t.Errorf("%s=%q: exit %d, want %q\n%s", c.name, c.value, code, c.want, errOut)
		}
	}
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, []byte("QUADRILLE_AMQP_URL=hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, errOut := with(t, fair(), nil, "topology", "apply", "--env-file",
		path); !strings.Contains(errOut, "QUADRILLE_AMQP_URL (in "+path+"): ") {
		t.Errorf("the file is not named: %s", errOut)
	}
	code, _, errOut := with(t, fair(), map[string]string{"QUADRILLE_AMQP_URL": "amqp://127.0.0.1:1"},
		"topology", "apply")
	if code != cli.ExitUnreachable || !strings.Contains(errOut, "QUADRILLE_AMQP_URL: ") ||
		!strings.Contains(errOut, "start one on this machine: fair open\n") {
		t.Errorf("a broker that is away: exit %d, %s", code, errOut)
	}
}

// A hint that is the same for all services is printed once, and names the setting with the address.
// What is wrong with a setting is no question of the usage of a command.
func TestHintOfAllServicesIsPrintedOnce(t *testing.T) {
	t.Parallel()
	settings := map[string]string{"QUADRILLE_GATE_URL": "http://127.0.0.1:1",
		"QUADRILLE_WHEEL_URL": "http://127.0.0.1:1"}
	_, _, errOut := with(t, fair(), settings, "breakers")
	if strings.Count(errOut, "start them with: fair open\n") != 1 ||
		!strings.Contains(errOut, "QUADRILLE_<SERVICE>_URL") {
		t.Errorf("services that are away: %s", errOut)
	}
	settings["QUADRILLE_TOKEN"] = "a b"
	_, _, errOut = with(t, fair(), settings, "breakers")
	if strings.Count(errOut, "correct it") != 1 || strings.Contains(errOut, "usage:") {
		t.Errorf("a wrong token: %s", errOut)
	}
}

// gate runs a command line of the fair, whose gate gives this answer and whose wheel none.
func gate(t *testing.T, path, answer string, args ...string) (code int, out, errOut string) {
	t.Helper()
	return one(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, path) {
			_, _ = io.WriteString(w, answer)
			return
		}
		_, _ = io.WriteString(w, "[]")
	}, args...)
}

// What no service knows is an error that says where to look next.
func TestUnknownSubjectNamesTheNextCommand(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"where", "trace"} {
		code, _, errOut := gate(t, "/none", "", command, "x")
		if code != cli.ExitNotFound || !strings.Contains(errOut, "club parked list") ||
			!strings.Contains(errOut, "list the ids there are: club tickets\n") {
			t.Errorf("%s: exit %d, %s", command, code, errOut)
		}
	}
}

// A deadline is told apart from what waits, because nothing is needed before it.
func TestDeadlineIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	due := time.Now().Add(time.Hour + time.Second/2).Format(time.RFC3339Nano)
	deadline := `{"place":"deadline","id":"d","type":"ticket.expire","due":"` + due + `"}`
	_, out, _ := gate(t, "/admin/waiting/", "["+deadline+"]", "where", "x")
	if !strings.Contains(out, "nothing waits\nthe deadline ticket.expire of here "+
		"passes in 1h, which does nothing if it is finished by then\n") ||
		strings.Contains(out, "WAITS") {
		t.Errorf("only a deadline:\n%s", out)
	}
	_, out, _ = gate(t, "/admin/waiting/", "["+deadline+
		`,{"place":"retry","id":"r","type":"ticket.sold","reason":"why"}]`, "where", "x")
	if !strings.Contains(out, "WAITS IN") || !strings.Contains(out, "retry ") ||
		strings.Contains(out, "deadline   ") {
		t.Errorf("a deadline and a retry:\n%s", out)
	}
}

// A deadline of a subject that has ended is no reason to wait, which is said. A test event, which
// no service has published, ends nothing.
func TestDeadlineOfFinishedSubjectDoesNothing(t *testing.T) {
	t.Parallel()
	due := time.Now().Add(15*time.Minute + time.Second/2).Format(time.RFC3339Nano)
	ask := func(command, published string) string {
		code, out, errOut := one(t, func(w http.ResponseWriter, r *http.Request) {
			answer := "[]"
			switch path := r.URL.Path; {
			case strings.HasPrefix(path, "/admin/waiting/"):
				answer = `[{"place":"deadline","type":"ticket.expire","reason":"deadline","due":"` + due + `"}]`
			case strings.HasPrefix(path, "/admin/history/"):
				answer = published
			case strings.HasPrefix(path, "/admin/event"):
				answer = `{"id":"a","type":"ticket.sold"}`
			case path == "/admin/handled":
				answer = `[{"id":"b","type":"ticket.used","at":"` + due + `"}]`
			}
			_, _ = io.WriteString(w, answer)
		}, command, "x")
		if code != 0 {
			t.Errorf("exit %d, %s", code, errOut)
		}
		return out
	}
	out := ask("where", `[{"id":"a","type":"ticket.sold"},{"id":"b","type":"ticket.used"},
		{"id":"c","type":"ticket.filed"}]`)
	if !strings.Contains(out, "nothing waits\nit is finished: ticket.used has ended it\nthe deadline "+
		"ticket.expire of here passes in 15m, which does nothing, because it is finished\n") {
		t.Errorf("a finished subject:\n%s", out)
	}
	out = ask("where", `[{"id":"a","type":"ticket.sold","causation_id":"b"}]`)
	if !strings.Contains(out, "by then") || strings.Contains(out, "has ended") {
		t.Errorf("a test event ends nothing:\n%s", out)
	}
	if out = ask("why", `[{"id":"a","type":"ticket.sold"}]`); strings.Contains(out, "waits") {
		t.Errorf("a deadline is taken for the reason why it waits:\n%s", out)
	}
}

// The state of a relay is told in words that need no knowledge of the machinery.
func TestRelayIsToldInPlainWords(t *testing.T) {
	t.Parallel()
	_, out, _ := gate(t, "/admin/relay", `{"source":"window","wanted":"stream","token":31,
		"since":"2026-01-02T15:04:05.5+01:00"}`, "relay", "show")
	for _, want := range []string{"window", "its outbox table, soon from the log of PostgreSQL",
		"2026-01-02T14:04:05Z"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "TOKEN") || strings.Contains(out, "31") {
		t.Errorf("a token means nothing to a reader:\n%s", out)
	}
}

// Times and durations have one form, whichever table they are in.
func TestTimesHaveOneForm(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	at := time.Date(2026, 1, 2, 15, 4, 5, 6, time.FixedZone("", 3600))
	cli.NewText(&out).Printf("%s %v %s %s %s %s\n", at, at, time.Time{}, 192345*time.Millisecond,
		3*time.Hour+5*time.Minute+7*time.Second, 12345*time.Microsecond)
	if got := out.String(); got != "2026-01-02T14:04:05Z 2026-01-02T14:04:05Z - 3m12s 3h5m 12ms\n" {
		t.Errorf("%s", got)
	}
}

// With --quiet progress and hints are left out, and errors and data stay.
func TestQuietLeavesOutNotes(t *testing.T) {
	t.Parallel()
	words := []string{"sell", "a", "5", "--till", "1", "--seller", "ada"}
	if _, _, errOut := with(t, fair(), nil, words...); errOut != "sold\n" {
		t.Errorf("without --quiet: %q", errOut)
	}
	if _, _, errOut := with(t, fair(), nil, append(words, "--quiet")...); errOut != "" {
		t.Errorf("with --quiet: %q", errOut)
	}
	_, _, errOut := with(t, fair(), map[string]string{"QUADRILLE_GATE_URL": "http://127.0.0.1:1"},
		"breakers", "-q")
	if !strings.Contains(errOut, "gate does not answer") {
		t.Errorf("errors are left out: %q", errOut)
	}
}

// A terminal obeys no word of the command line either, wherever help or completion repeats it.
func TestHelpEscapesWhatIsAsked(t *testing.T) {
	t.Parallel()
	for _, words := range [][]string{{"help", hostile}, {"help", "parked", hostile},
		{"completion", hostile}, {"sell", "--" + hostile}, {"sell", "--amount", hostile},
		{"-o", hostile, "help"}} {
		_, out, errOut := with(t, fair(), nil, words...)
		clean(t, out+errOut)
	}
}
