// Package localrun runs servers and services as processes of this machine, for tests, the demo and
// `quadrille up`: a private RabbitMQ and a private PostgreSQL from the packages of the
// distribution, and the programs of services.
//
// All programs that start the servers of a directory share them. The servers listen on 127.0.0.1
// only. They end after their last user has ended, even if it crashed: each user holds a shared file
// lock, which the kernel releases in every case, and a small script waits for that.
package localrun

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// ErrNotRunning means that no servers run in a directory.
var ErrNotRunning = errors.New("no servers run there")

// Options configures where servers run and how long they stay after their last user has ended.
type Options struct {
	// Dir contains all state of the servers; see [Dir].
	Dir string
	// Log, if not nil, reports to a person why a start takes long.
	Log func(format string, args ...any)
	// Detached servers run until they are stopped, with or without users.
	Detached bool
	// Linger is how long the servers stay after their last user has ended, in whole seconds.
	Linger time.Duration
	// KeepPorts makes a start fail if another program has taken a port that the servers had before.
	// Otherwise the servers get another port, which programs that know the address do not find.
	KeepPorts bool

	// PostgresOnly starts no broker, whose start takes seven seconds.
	PostgresOnly bool
	// Private servers ignore the environment, and their directory is removed together with them.
	Private bool
	// Containers allows a container runtime to run the servers if their programs are not installed.
	Containers bool
	// Sweep, if not nil, is called when the servers have been started and have no other user. No
	// other process can join them until it returns.
	Sweep func(ctx context.Context, s *Servers) error
}

// Servers are one running RabbitMQ and one running PostgreSQL.
type Servers struct {
	AMQPURL       string         // of an administrator, vhost "/"
	ManagementURL string         // of the same administrator, without a path
	PostgresURL   string         // of a superuser, database "postgres"
	Given         bool           // the environment has their addresses; they must not be stopped
	PIDs          map[string]int // "rabbitmq" and "postgres"; empty if Given

	stack    *stack
	started  bool // at least one server was started, and not joined
	onlyUser bool // there was no other user when they were started or joined
	mayMove  bool // a server whose port is taken may get another one

	mu sync.Mutex
	// lock is a bare descriptor, or 0. With an os.File, the garbage collector could close it, and the
	// servers would end during a test.
	lock int
}

// Dir returns the directory for the servers of a checkout. It is outside the checkout, because
// PostgreSQL refuses to run as root, and its own user may have no right to enter the checkout.
func Dir(checkout, name string) string {
	if abs, err := filepath.Abs(checkout); err == nil {
		checkout = abs
	}
	if resolved, err := filepath.EvalSymlinks(checkout); err == nil {
		checkout = resolved
	}
	sum := sha256.Sum256([]byte(checkout))
	return filepath.Join(TempDir(), fmt.Sprintf("quadrille-%d-%s-%s", os.Getuid(),
		hex.EncodeToString(sum[:4]), name))
}

// Start starts the servers of a directory, or joins those that already run there. Any number of
// processes may call it at the same time. It starts a server that has died again, on the same ports
// and with the same data. The servers run at least as long as this process, unless they are
// stopped.
//
// If QUADRILLE_AMQP_URL, QUADRILLE_MANAGEMENT_URL and QUADRILLE_POSTGRES_URL are set, Start returns
// these servers and starts nothing, except with [Options.Private].
func Start(ctx context.Context, opts Options) (*Servers, error) {
	if !opts.Private {
		if given, err := fromEnvironment(); given != nil || err != nil {
			return given, err
		}
	}
	return start(ctx, opts)
}

// start is Start without the environment.
func start(ctx context.Context, opts Options) (*Servers, error) {
	if opts.Dir == "" {
		return nil, errors.New("start servers: no directory was given")
	}
	k := newStack(opts.Dir, opts.Log)
	if err := k.folder.prepare(); err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	unlock, err := k.folder.lockStart(ctx)
	if err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	defer unlock()
	fresh, err := k.ensureState(ctx)
	if err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	s := &Servers{stack: k, mayMove: fresh || !opts.KeepPorts}
	if s.lock, s.onlyUser, err = k.folder.lockAsUser(); err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	if err := s.run(ctx, opts); err != nil {
		s.Release()
		return nil, err
	}
	if opts.Sweep != nil && s.started && s.onlyUser {
		if err := opts.Sweep(ctx, s); err != nil {
			s.Release()
			return nil, fmt.Errorf("start servers: %w", err)
		}
	}
	k.log = nil // a test that has started them ends before the servers do
	return s, nil
}

// run starts the missing servers; the caller holds the start lock. It starts the watcher first, so
// that servers end even if this process crashes during the start.
func (s *Servers) run(ctx context.Context, opts Options) error {
	k := s.stack
	dead := slices.DeleteFunc(k.servers(opts.PostgresOnly), (*server).ready)
	if len(dead) > 0 {
		if err := k.chooseRuntime(ctx, dead, opts.Containers); err != nil {
			return err
		}
	}
	servers := k.servers(opts.PostgresOnly)
	if err := k.script.watch(opts, slices.ContainsFunc(servers, (*server).alive)); err != nil {
		return fmt.Errorf("start servers: %w", err)
	}
	if err := k.start(ctx, dead, s.mayMove); err != nil {
		return err
	}
	s.started = len(dead) > 0
	s.describe(servers)
	return nil
}

// describe sets the exported fields.
func (s *Servers) describe(servers []*server) {
	s.PIDs = map[string]int{}
	for _, one := range servers {
		if pid, _ := one.pid(); pid != 0 { // a container has none
			s.PIDs[one.name] = pid
		}
	}
	s.PostgresURL = s.stack.settings.postgresURL()
	if len(servers) > 1 {
		s.AMQPURL, s.ManagementURL = s.stack.settings.amqpURL(), s.stack.settings.managementURL()
	}
}

// Running returns the servers that run in a directory. It starts nothing and does not keep the
// servers alive. It returns [ErrNotRunning] if one of them does not run.
func Running(dir string) (*Servers, error) {
	k := newStack(dir, nil)
	if _, err := os.Stat(k.folder.path("state.json")); err != nil {
		return nil, fmt.Errorf("find servers in %s: %w", dir, ErrNotRunning)
	}
	if err := k.load(); err != nil {
		return nil, fmt.Errorf("find servers in %s: %w", dir, err)
	}
	servers := k.servers(false)
	for _, one := range servers {
		if !one.ready() {
			return nil, fmt.Errorf("find servers in %s: %s: %w", dir, one.name, ErrNotRunning)
		}
	}
	s := &Servers{stack: k}
	s.describe(servers)
	return s, nil
}

// Stop stops the servers, even if they have other users. It does not stop given servers.
func (s *Servers) Stop() error {
	if s.Given {
		return nil
	}
	s.Release()
	return Stop(string(s.stack.folder))
}

// Release ends the use of the servers. If they have no other user, they end after the linger time.
// The end of the process has the same effect.
func (s *Servers) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock != 0 {
		_ = syscall.Close(s.lock) // even after an error the descriptor and the lock are gone
		s.lock = 0
	}
}

// Stop stops all servers of a directory, even if only one of them runs. It is not an error if none
// runs.
func Stop(dir string) error {
	k := newStack(dir, nil)
	if _, err := os.Stat(k.folder.path("start.lock")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	unlock, err := k.folder.lockStart(ctx)
	if err != nil {
		return fmt.Errorf("stop servers: %w", err)
	}
	defer unlock()
	if err := k.stop(ctx); err != nil {
		return fmt.Errorf("stop servers: %w", err)
	}
	return nil
}

// fromEnvironment returns the servers whose addresses are in the environment, or nil. The address
// of PostgreSQL decides: a person's shell may have the other two from the settings of a running
// stack, and the next start must not use the servers of that stack.
func fromEnvironment() (*Servers, error) {
	s := &Servers{
		AMQPURL:       os.Getenv("QUADRILLE_AMQP_URL"),
		ManagementURL: os.Getenv("QUADRILLE_MANAGEMENT_URL"),
		PostgresURL:   os.Getenv("QUADRILLE_POSTGRES_URL"),
		Given:         true,
		PIDs:          map[string]int{},
	}
	switch {
	case s.PostgresURL == "":
		return nil, nil
	case s.AMQPURL != "" && s.ManagementURL != "":
		return s, nil
	}
	return nil, errors.New("start servers: QUADRILLE_POSTGRES_URL is set without QUADRILLE_AMQP_URL " +
		"and QUADRILLE_MANAGEMENT_URL: set all three to use these servers, or unset " +
		"QUADRILLE_POSTGRES_URL to start private ones")
}
