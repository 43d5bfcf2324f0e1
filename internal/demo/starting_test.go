package demo

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/localrun"
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
		writeProgram(t, path, content)
	}
	program := func(name, content string) { write(filepath.Join(s.dir(), "bin", name), content) }
	write(filepath.Join(s.Root, "cmd", "orders", "main.go"), "")
	write(filepath.Join(s.dir(), "logs", "none"), "")
	for _, name := range []string{simulators, "payments", "shipping"} {
		program(name, asProcess+"=1 exec "+self)
	}
	program("orders", "echo it has no heart; exit 1") // and there is no inventory
	if s.state, err = loadState(s.dir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range s.processes() {
			s.state.signal(name, syscall.SIGKILL)
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
	before := s.state.Processes["payments-1"]
	program("orders", asProcess+"=1 exec "+self)
	program("inventory", asProcess+"=1 exec "+self)
	if err := s.startServices(t.Context()); err != nil || len(s.missing) > 0 ||
		s.state.Processes["payments-1"] != before {
		t.Errorf("missing %+v, payments moved from %v to %v: %v", s.missing, before,
			s.state.Processes["payments-1"], err)
	}
	for _, name := range s.processes() {
		s.state.signal(name, syscall.SIGKILL)
		s.state.awaitEnd(t.Context(), name)
		program(strings.TrimSuffix(name, "-1"), "exit 1")
	}
	if err := s.startServices(t.Context()); err == nil || cli.IsPartial(err) {
		t.Errorf("nothing is up: %v", err)
	}
}
