package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/servertest/shell"
)

// asProcess in the environment makes this program a service that is ready, and nothing else.
const asProcess = "QUADRILLE_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) == "" {
		os.Exit(m.Run())
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err == nil {
		err = http.Serve(listener, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// A process that does not come up stops no other one: the others are started, and it is named. The
// next up starts it alone.
func TestOneProcessThatDoesNotStartStopsNoOther(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &Stack{Root: t.TempDir(), Name: DefaultStack, Replicas: 1, Log: t.Logf, built: true,
		servers: &localrun.Servers{AMQPURL: "amqp://127.0.0.1:1/",
			PostgresURL: "postgres://127.0.0.1:1/d"}}
	write := func(path, content string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		shell.Script(t, path, content)
	}
	program := func(name, content string) { write(filepath.Join(s.dir(), "bin", name), content) }
	write(filepath.Join(s.Root, "cmd", "orders", "main.go"), "")
	write(filepath.Join(s.dir(), "logs", "none"), "")
	for _, name := range []string{simulators, "payments", "shipping"} {
		program(name, asProcess+"=1 exec "+self)
	}
	program("orders", "echo it has no heart; exit 1") // and there is no inventory
	if s.logins, err = loadLogins(s); err != nil {
		t.Fatal(err)
	}
	if err := s.load(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range s.started() {
			s.processes.Signal(name, syscall.SIGKILL)
		}
		s.stopServices(t.Context())
	})
	err = s.startServices(t.Context())
	if !cli.IsPartial(err) || len(s.missing) != 2 || s.missing[0].Service != "inventory-1" ||
		s.missing[1].Service != "orders-1" ||
		!strings.Contains(err.Error(), "it has no heart") {
		t.Errorf("missing %+v: %v", s.missing, err)
	}
	urls := s.describe()["services"].(map[string]string)
	if len(urls) != 2 || urls["payments"] == "" || urls["shipping"] == "" {
		t.Errorf("the services that are up: %v", urls)
	}
	before := s.processes.PID("payments-1")
	program("orders", asProcess+"=1 exec "+self)
	program("inventory", asProcess+"=1 exec "+self)
	if err := s.startServices(t.Context()); err != nil || len(s.missing) > 0 ||
		s.processes.PID("payments-1") != before {
		t.Errorf("missing %+v, payments moved from process %d to %d: %v", s.missing, before,
			s.processes.PID("payments-1"), err)
	}
	for _, name := range s.started() {
		s.processes.Signal(name, syscall.SIGKILL)
		s.processes.AwaitEnd(t.Context(), name)
		program(strings.TrimSuffix(name, "-1"), "exit 1")
	}
	if err := s.startServices(t.Context()); err == nil || cli.IsPartial(err) {
		t.Errorf("nothing is up: %v", err)
	}
}

// An up that starts only the servers writes no address of a service, at which nothing would serve.
func TestServersAloneHaveNoAddressesOfServices(t *testing.T) {
	t.Parallel()
	s := &Stack{Root: t.TempDir(), Name: DefaultStack, Replicas: 1, Log: t.Logf,
		servers: &localrun.Servers{AMQPURL: "amqp://127.0.0.1:1/",
			PostgresURL: "postgres://127.0.0.1:1/d"}}
	var err error
	if s.logins, err = loadLogins(s); err != nil {
		t.Fatal(err)
	}
	if err := s.load(); err != nil {
		t.Fatal(err)
	}
	names := func() (list []string) {
		for _, pair := range s.settings() {
			if strings.HasPrefix(pair[1], "http://127.0.0.1:") {
				list = append(list, pair[0])
			}
		}
		return list
	}
	const all = 9 // two of each service, and the simulators
	if got := names(); len(got) != all {
		t.Errorf("%d addresses, want %d: %s", len(got), all, got)
	}
	if s.Servers = true; len(names()) > 0 {
		t.Errorf("nothing serves there: %s", names())
	}
}

// While a stack is started or stopped, nothing else starts, stops or empties it.
func TestNothingChangesALockedStack(t *testing.T) {
	const shortly = 100 * time.Millisecond
	s := &Stack{Root: t.TempDir(), Name: DefaultStack, Replicas: 1, Log: t.Logf}
	unlock, err := s.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	for name, change := range map[string]func(context.Context) error{"up": s.Up, "down": s.Down,
		"reset": s.Reset} {
		ctx, cancel := context.WithTimeout(t.Context(), shortly)
		err := change(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "lock the stack") ||
			!errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s beside another one: %v", name, err)
		}
	}
}
