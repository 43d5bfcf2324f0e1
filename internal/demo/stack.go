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
	"time"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/topology"
)

// The bounds of starting and stopping.
const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second
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

	state   *state
	servers *localrun.Servers
	spawner spawner
	built   bool            // the services were built from the checkout
	missing []admin.Missing // processes that could not be started, or did not become ready
}

func demoServices() []topology.Service { return fulfilment.Topology().Services }

// accounts returns the names of all services that have a database and a broker user.
func (s *Stack) accounts() []string {
	var names []string
	for _, service := range demoServices() {
		names = append(names, service.Name)
	}
	return append(names, s.Databases...)
}

// dir returns the folder with the settings, process ids and logs of the stack.
func (s *Stack) dir() string {
	if s.Name == DefaultStack {
		return filepath.Join(s.Root, ".quadrille")
	}
	return filepath.Join(s.Root, ".quadrille", s.Name)
}

// DefaultStack is the name of the stack of up. The demo has its own stack.
const DefaultStack = "quadrille"

func (s *Stack) serverDir() string { return localrun.Dir(s.Root, s.Name) }

// Up starts the servers, prepares databases, users and the topology, and then starts the services.
// It keeps what already runs. When it returns, all services are ready.
func (s *Stack) Up(ctx context.Context) error {
	if err := s.validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.dir(), "logs"), 0o700); err != nil {
		return fmt.Errorf("create the folder of the stack: %w", err)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if s.state, err = loadState(s.dir()); err != nil {
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
		if slices.Contains(s.accounts()[:len(demoServices())+i], name) {
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
func (s *Stack) prepare(ctx context.Context) error {
	if err := s.prepareBroker(ctx); err != nil {
		return err
	}
	if err := s.prepareDatabases(ctx); err != nil {
		return err
	}
	return quadrille.ApplyTopology(ctx, s.operatorURL(), fulfilment.Topology())
}

// names lists the processes of services that this stack has started, in the order of the services.
func (s *Stack) names() []string {
	var names []string
	for _, service := range demoServices() {
		for i := 1; i <= maxReplicas; i++ {
			if name := fmt.Sprintf("%s-%d", service.Name, i); s.state.Processes[name].PID != 0 {
				names = append(names, name)
			}
		}
	}
	return names
}

// processes returns names and the simulators, which must end last.
func (s *Stack) processes() []string {
	names := s.names()
	if s.state.Processes[simulators].PID != 0 {
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
	if s.state, err = loadState(s.dir()); err != nil {
		return err
	}
	s.stopServices(ctx)
	s.state.release(ctx)
	_ = s.state.save() // after an error, the next start waits for the ports
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
	for _, name := range s.processes() {
		s.state.signal(name, terminate)
	}
	for _, name := range s.processes() {
		s.state.awaitEnd(ctx, name)
		delete(s.state.Processes, name)
	}
	_ = s.state.save() // after an error, the next command finds these processes ended
}

// runs reports whether this stack has started a process that has become ready.
func (s *Stack) runs(name string) bool {
	lacks := slices.ContainsFunc(s.missing, func(m admin.Missing) bool { return m.Service == name })
	return s.state.Processes[name].PID != 0 && !lacks
}

// Print returns the addresses and files of the stack for a person.
func (s *Stack) Print() string {
	var b strings.Builder
	for _, service := range demoServices() {
		if s.runs(service.Name + "-1") {
			fmt.Fprintf(&b, "%-10s %s\n", service.Name, s.state.url(service.Name))
		}
	}
	if s.runs(simulators) {
		fmt.Fprintf(&b, "%-10s http://%s\n", simulators, s.state.address(simulators))
	}
	fmt.Fprintf(&b, "%-10s %s\n", "broker", redacted(s.servers.ManagementURL))
	fmt.Fprintf(&b, "%-10s %s\n", "settings", filepath.Join(s.dir(), "env"))
	return b.String()
}

// stop stops one replica gracefully.
func (s *Stack) stop(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	s.state.signal(name, terminate)
	s.state.awaitEnd(ctx, name)
}
