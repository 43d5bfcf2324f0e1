package boot

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

func TestMain(m *testing.M) { webtest.Main(m) }

// settingsOf returns the settings of a service whose servers are away.
func settingsOf(more map[string]string) map[string]string {
	env := map[string]string{
		"QUADRILLE_PLAIN_DATABASE_URL": "postgres://u:hush@127.0.0.1:1/d?sslmode=disable",
		"QUADRILLE_PLAIN_AMQP_URL":     "amqp://u:hush@127.0.0.1:1/",
		"QUADRILLE_PLAIN_URL":          "http://127.0.0.1:0",
		"QUADRILLE_LOG_LEVEL":          "error",
	}
	maps.Copy(env, more)
	return env
}

func plain(c *Config) (*quadrille.Service, http.Handler, error) {
	config := c.Service()
	config.Name = "plain"
	s, err := quadrille.New(config)
	return s, http.NotFoundHandler(), err
}

// runPlain runs the service until ctx is done or the service fails.
func runPlain(ctx context.Context, env map[string]string) error {
	return run(ctx, "plain", lookupIn(env), plain)
}

func TestWrongSettingIsNamedWithoutSecrets(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none")
	for want, more := range map[string]map[string]string{
		"QUADRILLE_PLAIN_DATABASE_URL is not set": {"QUADRILLE_PLAIN_DATABASE_URL": ""},
		"QUADRILLE_PLAIN_AMQP_URL is not set":     {"QUADRILLE_PLAIN_AMQP_URL": ""},
		"QUADRILLE_PLAIN_URL is not set":          {"QUADRILLE_PLAIN_URL": ""},
		`QUADRILLE_PLAIN_URL: "127.0.0.1:8080" is wrong: want http://host:port, without a path`: {
			"QUADRILLE_PLAIN_URL": "127.0.0.1:8080"},
		`QUADRILLE_PLAIN_URL: "http://127.0.0.1" is wrong: want`: {
			"QUADRILLE_PLAIN_URL": "http://127.0.0.1"},
		"QUADRILLE_PLAIN_AMQP_URL_FILE: ": {"QUADRILLE_PLAIN_AMQP_URL": "",
			"QUADRILLE_PLAIN_AMQP_URL_FILE": none},
		"QUADRILLE_TOKENS_FILE: ": {"QUADRILLE_TOKENS_FILE": none},
		`QUADRILLE_LOG_LEVEL: "loud" is wrong: want trace, debug, info`: {
			"QUADRILLE_LOG_LEVEL": "loud"},
		`QUADRILLE_LOG_LEVEL: "7" is wrong`:                        {"QUADRILLE_LOG_LEVEL": "7"},
		`QUADRILLE_MIGRATE: "yes" is wrong: want auto, check, off`: {"QUADRILLE_MIGRATE": "yes"},
		`QUADRILLE_OUTBOX_KEEP: "1s" is wrong: want a duration such as 15m, at least 1m`: {
			"QUADRILLE_OUTBOX_KEEP": "1s"},
		"QUADRILLE_OUTBOX_KEEP: the value begins or ends with white space: want a duration": {
			"QUADRILLE_OUTBOX_KEEP": "400h "},
		"QUADRILLE_PLAIN_AMQP_URL: the value begins or ends with white space: want amqp://": {
			"QUADRILLE_PLAIN_AMQP_URL": "amqp://u:hush@127.0.0.1:1/\n"},
		"QUADRILLE_OUTBOX_KEEP, QUADRILLE_INBOX_KEEP: ": {"QUADRILLE_OUTBOX_KEEP": "9000h"},
		"QUADRILLE_PLAIN_LEADER_DATABASE_URL: ": {
			"QUADRILLE_PLAIN_LEADER_DATABASE_URL": "127.0.0.1"},
		"QUADRILLE_PLAIN_LISTEN or _URL: listen: without": {"QUADRILLE_PLAIN_LISTEN": "0.0.0.0:0"},
		"QUADRILLE_PLAIN_DATABASE_URL: service is misconfigured: Database: ": {
			"QUADRILLE_PLAIN_DATABASE_URL": "postgres://u:hush@127.0.0.1:1/d"},
		"database URL of 127.0.0.1:1/d: sslmode is not": {
			"QUADRILLE_PLAIN_DATABASE_URL": "postgres://u:hush@127.0.0.1:1/d"},
		"QUADRILLE_PLAIN_AMQP_URL: service is misconfigured: AMQP: broker URL: want amqp://": {
			"QUADRILLE_PLAIN_AMQP_URL": "u:hush@127.0.0.1"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), quadrilletest.Timeout)
		err := runPlain(ctx, settingsOf(more))
		cancel()
		if text := fmt.Sprint(err); !strings.Contains(text, want) || strings.Contains(text, "hush") {
			t.Errorf("error %s, want one with %q and without the password", text, want)
		}
	}
	all := fmt.Sprint(runPlain(t.Context(), nil))
	for _, name := range []string{"DATABASE_URL", "AMQP_URL", "URL"} {
		if !strings.Contains(all, "QUADRILLE_PLAIN_"+name+" is not set") {
			t.Errorf("three settings are missing, and the error does not name %s: %s", name, all)
		}
	}
}

func TestASettingMayBeInAFile(t *testing.T) {
	t.Parallel()
	env := settingsOf(map[string]string{
		"QUADRILLE_PLAIN_DATABASE_URL": "", "QUADRILLE_PLAIN_DATABASE_URL_FILE": webtest.File(t,
			"  from a file\n"),
		"QUADRILLE_PLAIN_AMQP_URL_FILE": webtest.File(t, "not used"),
		"QUADRILLE_PLAIN_LISTEN":        "127.0.0.1:7",
	})
	c := read("plain", lookupIn(env))
	if c.Database != "from a file" || c.AMQP != env["QUADRILLE_PLAIN_AMQP_URL"] ||
		c.Listen != "127.0.0.1:7" || len(c.errs) != 0 {
		t.Errorf("%q, %q, %q, %v", c.Database, c.AMQP, c.Listen, c.errs)
	}
}

// A variable whose name is nearly that of a setting is an error, because its value would be
// ignored. Another name with the prefix of settings is returned as unknown. Other variables are not
// checked.
func TestMisspeltSettingsAreNamed(t *testing.T) {
	t.Parallel()
	unknown, err := Misspelt([]string{
		"QUADRILLE_ORDES_DATABASE_URL=postgres://u:hush@x/y", "QUADRILLE_OUTBOX_KEP=1h",
		"QUADRILLE_PLAIN_AMQP_URL_FILES=x",
		"QUADRILLE_SOMETHING_ELSE=1", "PATH=/", "QUADRILLE_PLAIN_URL=x",
		"QUADRILLE_PAYMENTS_AMQP_URL_FILE=x", "QUADRILLE_TOKENS_FILE=x",
	}, "plain")
	if len(unknown) != 1 || unknown[0] != "QUADRILLE_SOMETHING_ELSE" ||
		strings.Contains(fmt.Sprint(err), "hush") {
		t.Errorf("unknown %v, %v", unknown, err)
	}
	for _, want := range []string{
		"QUADRILLE_ORDES_DATABASE_URL is not a setting: did you mean QUADRILLE_ORDERS_DATABASE_URL?",
		"QUADRILLE_OUTBOX_KEP is not a setting: did you mean QUADRILLE_OUTBOX_KEEP?",
		"QUADRILLE_PLAIN_AMQP_URL_FILES is not a setting: did you mean QUADRILLE_PLAIN_AMQP_URL_FILE?",
	} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// Every setting that the programs read or that docs/operations.md names is known.
func TestAllSettingsAreKnown(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`QUADRILLE_[A-Z_]*[A-Z]`)
	root := filepath.Join("..", "..")
	files := []string{filepath.Join(root, "docs", "operations.md"),
		filepath.Join(root, "compose.yaml")}
	for _, pattern := range []string{"cmd/*/*.go", "internal/boot/*.go", "internal/demo/*.go",
		"internal/localrun/*.go", "internal/servertest/*.go", "cli/*.go"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, slices.DeleteFunc(found,
			func(path string) bool { return strings.HasSuffix(path, "_test.go") })...)
	}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range name.FindAllString(string(content), -1) {
			if unknown, err := Misspelt([]string{found}); len(unknown) > 0 || err != nil {
				t.Errorf("%s: %s is not known: %v", path, found, err)
			}
		}
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	const name = "QUADRILLE_OUTBOX_KEEP"
	for value, want := range map[string]time.Duration{"90s": 90 * time.Second,
		"": outbox.DefaultKeep} {
		c := &Config{lookup: lookupIn(map[string]string{name: value})}
		if got := c.Duration(name); got != want || len(c.errs) != 0 {
			t.Errorf("%q: %s, %v", value, got, c.errs)
		}
	}
	for _, value := range []string{"0s", "-1m", "15", "1ns", "2540400h"} {
		c := &Config{lookup: lookupIn(map[string]string{name: value})}
		c.Duration(name)
		if len(c.errs) != 1 || !strings.HasPrefix(c.errs[0].Error(), name+": ") {
			t.Errorf("%s: %v", value, c.errs)
		}
	}
}

// Unavailable servers do not end the program. A signal ends it gracefully.
func TestServiceRunsWithoutItsServersUntilItIsStopped(t *testing.T) {
	t.Parallel()
	addr := servertest.Addresses(t, 1)[0]
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- runPlain(ctx, settingsOf(map[string]string{"QUADRILLE_PLAIN_URL": "http://" +
			addr}))
	}()
	client := &webtest.Service{TB: t, URL: "http://" + addr}
	quadrilletest.WaitFor(t, "the service is alive", func() (bool, string) {
		a, err := client.Try(ctx, "GET", "/healthz", "")
		return err == nil && a.Status == http.StatusOK, fmt.Sprint(a, err)
	})
	if a := client.Call("GET", "/readyz", ""); a.Status != http.StatusServiceUnavailable {
		t.Errorf("ready without a database: %+v", a)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(quadrilletest.Timeout):
		t.Error("the service does not end after it was stopped")
	}
}

// If the address is in use, the program ends with an error that names the setting.
func TestAnAddressInUseEndsTheProgram(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	err := runPlain(t.Context(), settingsOf(map[string]string{"QUADRILLE_PLAIN_URL": server.URL}))
	if err == nil || !strings.Contains(err.Error(), "QUADRILLE_PLAIN_LISTEN or _URL: ") {
		t.Errorf("%v", err)
	}
}

// Passwords of the configuration are never logged.
func TestLogContainsNoSecret(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	build := func(c *Config) (*quadrille.Service, http.Handler, error) {
		c.Log = zerolog.New(file)
		return plain(c)
	}
	done := make(chan error, 1)
	go func() { done <- run(ctx, "plain", lookupIn(settingsOf(nil)), build) }()
	quadrilletest.WaitFor(t, "the log reports the missing database", func() (bool, string) {
		data, _ := os.ReadFile(path)
		return strings.Contains(string(data), "waiting for the database"), string(data)
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(path); err != nil || strings.Contains(string(data), "hush") {
		t.Errorf("%s, %v", data, err)
	}
}
