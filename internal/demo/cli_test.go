package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
	"github.com/quadrille-go/quadrille/internal/outside"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// services are the four services in the process of the test, with settings for the command
// line.
type services struct {
	*testing.T
	settings  map[string]string
	databases map[string]string // by service
}

// startServices starts them on a broker, after what prepare changes there.
func startServices(t *testing.T, prepare ...func(t *testing.T, broker string)) *services {
	t.Helper()
	amqp, management := servertest.Vhost(t)
	if err := rabbit.Apply(t.Context(), amqp, fulfilment.Topology()); err != nil {
		t.Fatal(err)
	}
	for _, change := range prepare {
		change(t, amqp)
	}
	b := &services{T: t, databases: map[string]string{}, settings: map[string]string{
		"QUADRILLE_AMQP_URL": amqp, "QUADRILLE_MANAGEMENT_URL": management}}
	for name, service := range map[string]webtest.New{
		"orders": func(db string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
			return webtest.Must(orders.New(quadrille.Config{Database: db, AMQP: amqp, Log: log}, time.Hour))
		},
		"payments": func(db string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
			return webtest.Must(payments.New(quadrille.Config{Database: db, AMQP: amqp, Log: log},
				absentProvider(t)))
		},
		"inventory": func(db string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
			return webtest.Must(inventory.New(quadrille.Config{Database: db, AMQP: amqp, Log: log}))
		},
		"shipping": func(db string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
			return webtest.Must(shipping.New(quadrille.Config{Database: db, AMQP: amqp, Log: log}, nil,
				shipping.Countries))
		},
	} {
		b.start(name, service)
	}
	return b
}

func (b *services) start(name string, service webtest.New) {
	b.Helper()
	b.databases[name] = webtest.Database(b, service)
	s, api := service(b.databases[name], zerolog.Nop())
	tokens, err := web.LoadTokens("")
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(web.Mux(s, tokens, api, web.Concurrency))
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Errorf("%s: %v", name, err)
		}
		server.Close()
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	b.settings["QUADRILLE_"+strings.ToUpper(name)+"_URL"] = server.URL
	quadrilletest.WaitFor(b, name+" is connected", func() (bool, string) {
		return s.Connected(), fmt.Sprint(s.Healthy())
	})
}

// run runs the command line with these arguments.
func (b *services) run(in string, args ...string) (code int, out, errOut string) {
	b.Helper()
	var o, e bytes.Buffer
	code = cli.Run(b.Context(), App(), args, strings.NewReader(in), &o, &e,
		func(name string) (string, bool) { value, ok := b.settings[name]; return value, ok })
	return code, o.String(), e.String()
}

// commandLine is a command line, with its expected exit code and output.
type commandLine struct {
	args, in string
	code     int
	want     string // part of standard output, or also of standard error if the code is not 0
}

// check runs a command line with text output, and if asJSON is set again with JSON output.
func (b *services) check(l commandLine, asJSON bool) {
	b.Helper()
	args := strings.Fields(l.args)
	code, out, errOut := b.run(l.in, args...)
	printed := out
	if l.code != 0 {
		printed += errOut
	}
	if code != l.code || !strings.Contains(printed, l.want) || code != 0 && errOut == "" {
		b.Errorf("%s: exit %d, want %d with %q\n%s%s", l.args, code, l.code, l.want, out, errOut)
	}
	if !asJSON {
		return
	}
	code, out, errOut = b.run(l.in, append(args, "-o", "json")...)
	if code != l.code || !json.Valid([]byte(out)) {
		b.Errorf("%s -o json: exit %d, want %d\n%s%s", l.args, code, l.code, out, errOut)
	}
}

// turnPages runs a command line that lists, and then the command line that it names for the next
// page.
func (b *services) turnPages(args string, want int) {
	b.Helper()
	pages := 0
	for more := true; more; pages++ {
		code, out, errOut := b.run("", strings.Fields(args)...)
		if code != 0 || out == "" || pages == want {
			b.Fatalf("%s: page %d, want %d pages: exit %d\n%s%s", args, pages+1, want, code, out, errOut)
		}
		_, args, more = strings.Cut(strings.TrimSpace(errOut),
			"there is more; for the next page: quadrille ")
	}
	if pages != want {
		b.Errorf("%d pages, want %d", pages, want)
	}
}

// absentProvider returns a payment provider that is away.
func absentProvider(t *testing.T) *outside.Peer {
	peer := outside.New("provider", "http://127.0.0.1:1", time.Minute, zerolog.Nop())
	t.Cleanup(peer.Close)
	return peer
}

// commands returns command lines about an event and an order, whose ids are not used elsewhere.
func commands(id, order string) []commandLine {
	return []commandLine{
		{"version", "", 0, "quadrille"},
		{"topology show", "", 0, "order.placed"},
		{"topology apply", "", 0, "applied"},
		{"topology audit", "", 0, ""},
		{"topology plan", "", 0, "0 to add, 0 to change, 0 to remove"},
		{"topology lint", "", 0, "3 findings, 3 accepted"},
		{"topology lint --rules", "", 0, "undo-missing"},
		{"topology apply --prune", "", 0, "0 removed, 0 refused"},
		{"relay show", "", 0, "window"},
		{"relay use window orders payments", "", 0, "window"},
		{"breakers", "", 0, "provider"},
		{"accounts deposit ada 100000", "", 0, "ada has 100000 EUR"},
		{"accounts show ada", "", 0, "ada has"},
		{"accounts history ada", "", 0, "100000 EUR"},
		{"accounts verify", "", 0, "events fit"},
		{"accounts verify ada", "", 0, "events fit"},
		{"accounts rebuild", "", 0, "rebuilt from"},
		{"stock list", "", 0, ""},
		{"publish order.placed", "", 0, "published order.placed"},
		{"publish order.placed --count 3", "", 0, "published order.placed"},
		{"publish order.placed --id " + id, "", 0, id},
		{"publish order.placed --dry-run --set order_id=" + order, "", 0, order},
		{"publish order.placed --dry-run --set nothing.at.all=1", "", cli.ExitUsage, "--set"},
		{"publish order.placed --data {}", "", cli.ExitUsage, "--no-validate"},
		{"publish order.placed --data -", "{}", cli.ExitUsage, "--no-validate"},
		{"publish order.placed --data @/nowhere", "", cli.ExitUsage, "--data"},
		{"publish order.placed --count 0", "", cli.ExitUsage, "--count"},
		{"publish order.placed --id seven", "", cli.ExitUsage, "--id"},
		{"publish order.imagined", "", cli.ExitUsage, "order.imagined"},
		{"publish order.placed --no-validate --data {} --id " + id, "", 0, id},
		{"trace " + events.NewID(), "", cli.ExitNotFound, "no service"},
		{"order show " + events.NewID(), "", cli.ExitNotFound, ""},
		{"accounts show nobody", "", cli.ExitNotFound, ""},
		{"parked show " + events.NewID(), "", cli.ExitNotFound, "nothing is parked"},
		{"parked dry-run " + events.NewID(), "", cli.ExitNotFound, "nothing is parked"},
		{"replay orders " + events.NewID(), "", cli.ExitNotFound, ""},
		{"replay nobody --since 1h", "", cli.ExitUsage, "nobody"},
		{"relay use river orders", "", cli.ExitUsage, "want window or stream"},
		{"fly", "", cli.ExitUsage, "fly"},
		{"ordr list", "", cli.ExitUsage, `did you mean "order"?`},
		{"parked shw x", "", cli.ExitUsage, `did you mean "show"?`},
		{"parked fly", "", cli.ExitUsage, "fly"},
		{"version --louder", "", cli.ExitUsage, "louder"},
		{"version -o yaml", "", cli.ExitUsage, "yaml"},
		{"up --replicas 0", "", cli.ExitUsage, "replicas"},
		{"up --without nobody", "", cli.ExitUsage, "nobody"},
	}
}

// Each command does what its help says, prints JSON if it prints data, and ends with the documented
// exit code.
func TestCommands(t *testing.T) {
	t.Parallel()
	b := startServices(t)
	id, order := events.NewID(), events.NewID()
	for _, l := range commands(id, order) {
		b.check(l, l.code == 0)
	}
	for _, l := range []commandLine{
		{"topology show --mermaid", "", 0, "flowchart"},
		{"topology export -o permissions", "", 0, "rabbitmqctl set_permissions"},
		{"topology export -o xml", "", cli.ExitUsage, "want one of asyncapi"},
		{"completion bash", "", 0, "quadrille"},
		{"__complete publish order.p", "", 0, "order.placed"},
		{"parked", "", 0, "Available Commands"},
	} {
		b.check(l, false)
	}
	misspelt := webtest.File(t, "QUADRILLE_ORDES_URL=x\n")
	b.check(commandLine{"version --env-file " + misspelt, "", cli.ExitUsage,
		"did you mean QUADRILLE_ORDERS_URL?"}, false)
	var bad string
	quadrilletest.WaitFor(t, "the malformed event is parked", func() (bool, string) {
		var list admin.ParkedList
		code, out, errOut := b.run("", "parked", "list", "-o", "json")
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return false, fmt.Sprint(code, out, errOut, err)
		}
		for _, p := range list.Parked {
			if strings.HasPrefix(p.Reason, "malformed") {
				bad = p.ID
			}
		}
		return code == 0 && bad != "", fmt.Sprint(code, out, errOut)
	})
	for range 3 {
		b.check(commandLine{"order place --customer pat --line teapot:1:2500", "", 0, "placed"}, false)
	}
	for _, sku := range []string{"cup", "pot"} {
		b.check(commandLine{"stock receive " + sku + " 5", "", 0, sku}, true)
	}
	b.turnPages("order list --customer pat --limit 2", 2)
	b.turnPages("stock list --limit 1", 2)
	b.check(commandLine{"order list --customer pat --limit 3", "", 0, "pat"}, true)
	b.check(commandLine{"parked list", "", 0, "order.placed"}, true)
	b.check(commandLine{"parked list --limit 1", "", 0, "order.placed"}, true)
	b.check(commandLine{"parked show " + bad, "", 0, "order.placed"}, true)
	b.check(commandLine{"parked show " + bad, "", 0, "\ntype: order.placed\n"}, false)
	b.check(commandLine{"parked dry-run " + bad, "", cli.ExitProblems, "would fail"}, true)
	amqp, management := servertest.Vhost(t) // a broker without the topology
	bare := &services{T: t, settings: map[string]string{"QUADRILLE_AMQP_URL": amqp,
		"QUADRILLE_MANAGEMENT_URL": management}}
	bare.check(commandLine{"topology audit", "", cli.ExitProblems,
		"the broker is not as fulfilment wants it"}, true)
	bare.check(commandLine{"topology plan", "", cli.ExitProblems,
		"the broker differs from fulfilment"}, true)
	bare.check(commandLine{"publish order.placed", "", cli.ExitUnreachable, "topology apply"}, false)
}

// A service that is away hides no other one: what answers is done and printed, and the exit code
// and standard error name the rest. A command of one service alone cannot be done in part.
func TestCommandsWithoutAService(t *testing.T) {
	t.Parallel()
	b := startServices(t)
	away := httptest.NewServer(nil)
	away.Close()
	b.settings["QUADRILLE_PAYMENTS_URL"] = away.URL
	for _, l := range []commandLine{
		{"relay use window payments orders", "", cli.ExitPartial, "orders"},
		{"replay payments orders --since 1h", "", cli.ExitPartial, "orders: 0 events published again"},
		{"relay show", "", cli.ExitPartial, "shipping"},
		{"breakers", "", cli.ExitPartial, "SERVICE"},
		{"parked list", "", cli.ExitPartial, "without payments"},
	} {
		b.check(l, true)
		b.check(commandLine{l.args, l.in, l.code, "payments does not answer"}, false)
	}
	for _, l := range []commandLine{
		{"relay use window payments", "", cli.ExitUnreachable, "payments"},
		{"replay payments --since 1h", "", cli.ExitUnreachable, "payments"},
		{"accounts verify ada", "", cli.ExitUnreachable, "payments"},
		{"accounts history ada", "", cli.ExitUnreachable, "payments"},
		{"accounts rebuild", "", cli.ExitUnreachable, "payments"},
		{"replay payments orders " + events.NewID(), "", cli.ExitUsage, "the one service"},
		{"relay use window payments nobody", "", cli.ExitUsage, "nobody"},
		{"relay use river orders payments", "", cli.ExitUsage, "want window or stream"},
	} {
		b.check(l, false)
	}
}

// A service that stops answering in the middle of a command leaves what it answered before.
func TestWhatWasAnsweredIsPrinted(t *testing.T) {
	t.Parallel()
	payments := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := map[string]string{
			"POST /accounts/ada/verification":  `{"customer":"ada","events":7,"fits":true}`,
			"POST /accounts/cleo/verification": `{"customer":"cleo","events":9,"fits":true}`,
			"GET /verifications?after=": `{"accounts":[{"customer":"ada",` +
				`"events":7,"fits":true}],"next":"ada"}`,
			"GET /accounts/ada/history?limit=1000&after=": `{"events":[{"version":1,` +
				`"type":"account.opened","data":{}}],"next":"1"}`,
			"POST /admin/projections/account_balances/rebuild": `[{"name":"account_balances",` +
				`"generation":2,"live":true,"done":5,"of":5}]`,
			"POST /admin/projections/account_statement/rebuild": "",
		}[r.Method+" "+r.URL.RequestURI()]
		switch {
		case strings.Contains(r.URL.Path, "nobody"):
			w.WriteHeader(http.StatusNotFound)
		case !ok || body == "":
			panic(http.ErrAbortHandler) // the connection ends without an answer
		default:
			_, _ = w.Write([]byte(body))
		}
	}))
	t.Cleanup(payments.Close)
	b := &services{T: t, settings: map[string]string{"QUADRILLE_PAYMENTS_URL": payments.URL}}
	for _, l := range []commandLine{
		{"accounts verify ada bob", "", cli.ExitPartial, "ada: 7 events fit"},
		{"accounts verify ada nobody cleo", "", cli.ExitNotFound, "cleo: 9 events fit"},
		{"accounts verify", "", cli.ExitPartial, "ada: 7 events fit"},
		{"accounts history ada", "", cli.ExitPartial, "account.opened"},
		{"accounts rebuild", "", cli.ExitPartial, "account_balances: rebuilt from 5 events"},
	} {
		b.check(l, true)
	}
}
