package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/topology"
)

// The bounds of starting and stopping.
const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second
	lockTimeout  = 3 * time.Minute // for another up, down or demo of the stack
	maxReplicas  = 20
)

// ownName is what the name of a database may be: it is a part of the names of accounts and
// settings.
var ownName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// Stack is the whole system on this machine: private servers, the four services and the simulators
// as processes.
type Stack struct {
	Root     string // the checkout, or any folder
	Name     string // different for each stack of a folder
	Replicas int    // of each service
	Without  []string
	Servers  bool // start only the servers
	// Databases are names of services of one's own: each gets a database and a broker user.
	Databases []string
	Detached  bool     // the stack outlives this process
	Settings  []string // additional environment of the services, as NAME=value
	Log       func(format string, args ...any)
	App       cli.App // for hints

	servers   *localrun.Servers
	logins    *logins             // of the services at the servers
	processes *localrun.Processes // of the services, and the simulators
	built     bool                // the services were built from the checkout
	missing   []admin.Missing     // processes that could not be started, or did not become ready
}

func demoServices() []topology.Service { return fulfilment.Topology().Services }

// dir returns the folder with the settings, process ids and logs of the stack.
func (s *Stack) dir() string {
	if s.Name == DefaultStack {
		return filepath.Join(s.Root, ".quadrille")
	}
	return filepath.Join(s.Root, ".quadrille", s.Name)
}

// DefaultStack is the name of the stack of up. The demo has its own stack.
const DefaultStack = "quadrille"

// lock prevents other programs from starting or stopping this stack at the same time.
func (s *Stack) lock(ctx context.Context) (unlock func(), err error) {
	return localrun.Lock(ctx, s.dir(), lockTimeout)
}

// load reads what an earlier command has started.
func (s *Stack) load() (err error) {
	if s.processes, err = localrun.OpenProcesses(s.dir()); err != nil {
		return err
	}
	s.processes.Detached = s.Detached
	return nil
}

func (s *Stack) serverDir() string { return localrun.Dir(s.Root, s.Name) }

// Up starts the servers, prepares databases, users and the topology, and then starts the services.
// It keeps what already runs. When it returns, all services are ready.
func (s *Stack) Up(ctx context.Context) error {
	if err := s.validate(); err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.load(); err != nil {
		return err
	}
	s.servers, err = localrun.Start(ctx, localrun.Options{Dir: s.serverDir(), Log: s.Log,
		Detached: s.Detached, KeepPorts: true})
	if err != nil {
		return err
	}
	s.Log("the servers are ready")
	if err := s.prepare(ctx); err != nil {
		return fmt.Errorf("prepare servers: %w", err)
	}
	if err := s.writeEnv(); err != nil {
		return err
	}
	if s.Servers {
		return s.writePIDs()
	}
	return s.startServices(ctx)
}

func (s *Stack) validate() error {
	if s.Replicas < 1 || s.Replicas > maxReplicas {
		return fmt.Errorf("%d replicas: want 1 to %d", s.Replicas, maxReplicas)
	}
	for i, name := range s.Databases {
		if !ownName.MatchString(name) {
			return fmt.Errorf("--database %.64q: want a name of lower-case letters, digits and underscores "+
				"that begins with a letter", name)
		}
		_, demo := fulfilment.Topology().Service(name)
		if demo || slices.Contains(s.Databases[:i], name) {
			return fmt.Errorf("--database %s: this name has a database already", name)
		}
	}
	for _, name := range s.Without {
		if _, ok := fulfilment.Topology().Service(name); !ok {
			return fmt.Errorf(
				"there is no service %q: the services are orders, payments, inventory, shipping", name)
		}
	}
	return nil
}

// prepare creates the virtual host and, for each service, a broker user and a database with its
// role, and applies the topology. All of them may exist already.
func (s *Stack) prepare(ctx context.Context) (err error) {
	if s.logins, err = loadLogins(s); err != nil {
		return err
	}
	if err := s.logins.prepareBroker(ctx); err != nil {
		return err
	}
	if err := s.logins.prepareDatabases(ctx); err != nil {
		return err
	}
	return quadrille.ApplyTopology(ctx, s.logins.operatorURL(), fulfilment.Topology())
}

// Names lists the processes of services that this stack has started, such as "orders-1", in the
// order of the services.
func (s *Stack) Names() []string {
	var names []string
	for _, service := range demoServices() {
		for i := 1; i <= maxReplicas; i++ {
			if name := fmt.Sprintf("%s-%d", service.Name, i); s.processes.PID(name) != 0 {
				names = append(names, name)
			}
		}
	}
	return names
}

// started returns Names and the simulators, which must end last.
func (s *Stack) started() []string {
	names := s.Names()
	if s.processes.PID(simulators) != 0 {
		names = append(names, simulators)
	}
	return names
}

// Down stops the services and then the servers of a stack, also those that another process started.
func (s *Stack) Down(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.load(); err != nil {
		return err
	}
	s.stopServices(ctx)
	s.processes.Release(ctx)
	_ = s.processes.Save() // after an error, the next start waits for the ports
	if err := localrun.Stop(s.serverDir()); err != nil {
		return err
	}
	for _, file := range []string{"env", "pids"} {
		if err := os.Remove(filepath.Join(s.dir(), file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("clean up: %w", err)
		}
	}
	return nil
}

// stopServices stops the services gracefully and kills those that have not ended after stopTimeout.
func (s *Stack) stopServices(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, name := range s.started() {
		s.processes.Signal(name, syscall.SIGTERM)
	}
	for _, name := range s.started() {
		s.processes.AwaitEnd(ctx, name)
		_ = s.processes.Forget(name) // after an error, the next command finds the process ended
	}
}

// runs reports whether this stack has started a process that has become ready.
func (s *Stack) runs(name string) bool {
	lacks := slices.ContainsFunc(s.missing, func(m admin.Missing) bool { return m.Service == name })
	return s.processes.PID(name) != 0 && !lacks
}

// Print returns the addresses and files of the stack for a person.
func (s *Stack) Print() string {
	var b strings.Builder
	for _, service := range demoServices() {
		if s.runs(service.Name + "-1") {
			fmt.Fprintf(&b, "%-10s %s\n", service.Name, s.URL(service.Name, 1))
		}
	}
	if s.runs(simulators) {
		fmt.Fprintf(&b, "%-10s http://%s\n", simulators, s.processes.Address(simulators))
	}
	fmt.Fprintf(&b, "%-10s %s\n", "broker", redacted(s.servers.ManagementURL))
	fmt.Fprintf(&b, "%-10s %s\n", "settings", filepath.Join(s.dir(), "env"))
	return b.String()
}
