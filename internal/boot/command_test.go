package boot

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

var update = flag.Bool("update", false, "write the table of settings in docs/operations.md again")

// call calls a program with arguments and returns what it prints.
func call(t *testing.T, env map[string]string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := command(t.Context(), "plain", args, lookupIn(env), plain, &out)
	return out.String(), err
}

func TestMigrateCommands(t *testing.T) {
	t.Parallel()
	env := settingsOf(map[string]string{"QUADRILLE_PLAIN_DATABASE_URL": servertest.Database(t, "empty",
		func(context.Context, string) error { return nil })})
	out, err := call(t, env, "migrate", "status")
	if !errors.Is(err, errPending) || !strings.Contains(out, "outbox     1         001_outbox.sql") ||
		!strings.Contains(out, " pending\n") {
		t.Errorf("status of an empty database: %v\n%s", err, out)
	}
	env["QUADRILLE_MIGRATE"] = "check"
	ctx, cancel := context.WithTimeout(t.Context(), quadrilletest.Timeout)
	defer cancel()
	err = runPlain(ctx, env)
	if text := fmt.Sprint(err); !errors.Is(err, quadrille.ErrNotMigrated) ||
		!strings.Contains(text, "outbox 001_outbox.sql") ||
		!strings.Contains(text, "run: plain migrate up") {
		t.Errorf("start with check: %v", err)
	}
	if out, err = call(t, env, "migrate", "print"); err != nil ||
		!strings.Contains(out, "-- outbox 001_outbox.sql\nBEGIN;\n") {
		t.Errorf("print: %v\n%s", err, out)
	}
	if out, err = call(t, env, "migrate", "up"); err != nil {
		t.Errorf("up: %v\n%s", err, out)
	}
	if out, err = call(t, env, "migrate", "status"); err != nil ||
		strings.Contains(out, " pending\n") {
		t.Errorf("status afterwards: %v\n%s", err, out)
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	out, err := call(t, settingsOf(nil), "config", "check")
	if err != nil || !strings.Contains(out, "valid") {
		t.Errorf("valid settings: %v, %s", err, out)
	}
	out, err = call(t, settingsOf(map[string]string{"QUADRILLE_PLAIN_DATABASE_URL": "hush",
		"QUADRILLE_LOG_LEVEL": "loud", "QUADRILLE_TOKENS_FILE": "/nope",
		"QUADRILLE_PLAIN_AMQP_URL": "hush "}), "config", "check")
	for _, name := range []string{"PLAIN_DATABASE_URL", "LOG_LEVEL", "TOKENS_FILE", "PLAIN_AMQP_URL"} {
		if text := fmt.Sprint(err); !strings.Contains(text, "QUADRILLE_"+name) ||
			strings.Contains(text+out, "hush") {
			t.Errorf("no fault of %s, or a secret: %v, %s", name, err, out)
		}
	}
	if _, err = call(t, settingsOf(map[string]string{"QUADRILLE_PLAIN_LISTEN": "0.0.0.0:1"}),
		"config", "check"); err == nil {
		t.Error("an address that needs tokens is valid without any")
	}
	if _, err = call(t, nil, "migrate"); err == nil || !strings.Contains(err.Error(),
		"plain migrate status") {
		t.Errorf("unknown arguments: %v", err)
	}
}

// The four services read the settings that the help shows, and no others.
func TestHelpShowsWhatIsRead(t *testing.T) {
	t.Parallel()
	for name, build := range map[string]Build{
		"orders": func(c *Config) (*quadrille.Service, http.Handler, error) {
			return orders.New(c.ServiceWithKeys(), c.Duration("QUADRILLE_ORDER_DEADLINE"))
		},
		"payments": func(c *Config) (*quadrille.Service, http.Handler, error) {
			return payments.New(c.ServiceWithKeys(), c.Peer("provider",
				"QUADRILLE_PAYMENTS_PROVIDER_URL"))
		},
		"shipping": func(c *Config) (*quadrille.Service, http.Handler, error) {
			return shipping.New(c.Service(), c.Peer("carrier", "QUADRILLE_SHIPPING_CARRIER_URL"),
				c.Countries("QUADRILLE_SHIPPING_COUNTRIES", shipping.Countries))
		},
	} {
		read := map[string]bool{}
		lookup := func(variable string) (string, bool) {
			read[variable] = true
			return "", false
		}
		var out bytes.Buffer
		_ = check(name, lookup, build, &out) // nothing is set
		c := &Config{name: name, lookup: lookup}
		_, _ = c.inherited("")
		if err := help(name, &out); err != nil {
			t.Fatal(err)
		}
		for _, s := range settings {
			variable := s.of(name)
			shown := strings.Contains(out.String(), "\n"+variable+"\n    ")
			if read[variable] != shown {
				t.Errorf("%s: read %v, in the help %v", variable, read[variable], shown)
			}
		}
		for _, word := range []string{"`", "*_"} {
			if strings.Contains(out.String(), word) {
				t.Errorf("the help of %s contains %s", name, word)
			}
		}
	}
}

// docs/operations.md has the settings in a table.
func TestSettingsAreDocumented(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "operations.md")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(content), "<!-- settings -->\n")
	_, after, end := strings.Cut(rest, "<!-- end of settings -->\n")
	if !found || !end {
		t.Fatal("docs/operations.md has no place for the table of settings")
	}
	want := before + "<!-- settings -->\n" + settingsTable() + "<!-- end of settings -->\n" + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if want != string(content) && !*update {
		t.Error("docs/operations.md has another table (go test ./internal/boot -update writes it)")
	}
}

func settingsTable() string {
	var b strings.Builder
	b.WriteString("| setting | read by | value | default | meaning |\n|---|---|---|---|---|\n")
	for _, s := range settings {
		if s.reader == ofTests {
			continue
		}
		reader := s.reader
		if reader == ofServices {
			reader = "every service"
		}
		line := fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", s.of("orders"), reader, s.form(),
			s.otherwise(), s.meaning)
		b.WriteString(strings.ReplaceAll(line, "`*_", "`QUADRILLE_ORDERS_"))
	}
	return b.String()
}

// A default is valid.
func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	c := read("plain", lookupIn(settingsOf(nil)))
	if len(c.errs) != 0 || c.migrate != "auto" ||
		!strings.Contains(levels, c.Log.GetLevel().String()) {
		t.Errorf("%v, %s", c.errs, c.migrate)
	}
}
