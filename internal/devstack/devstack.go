// Package devstack starts a private RabbitMQ and a private PostgreSQL from the packages of the
// distribution, for the tests, the demo and `quadrille up`.
//
// All processes that start the servers of a directory share them. The servers listen on 127.0.0.1
// only. They end after their last user has ended, even if it crashed: each user holds a shared file
// lock, which the kernel releases in every case, and a small script waits for that.
package devstack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
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

	postgresOnly bool // for tests that need no broker, whose start takes seven seconds
	temporary    bool // the directory is removed together with its servers
	sweep        bool // remove the databases and vhosts of killed tests, if there is no other user
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
	return filepath.Join(tempDir(), fmt.Sprintf("quadrille-%d-%s-%s", os.Getuid(),
		hex.EncodeToString(sum[:4]), name))
}

// Start starts the servers of a directory, or joins those that already run there. Any number of
// processes may call it at the same time. It starts a server that has died again, on the same ports
// and with the same data. The servers run at least as long as this process, unless they are
// stopped.
//
// If QUADRILLE_AMQP_URL, QUADRILLE_MANAGEMENT_URL and QUADRILLE_POSTGRES_URL are set, Start returns
// these servers and starts nothing.
func Start(ctx context.Context, opts Options) (*Servers, error) {
	given, err := fromEnvironment()
	if given != nil || err != nil {
		return given, err
	}
	return start(ctx, opts)
}

// start does the same as Start, but ignores the environment: a test that kills servers must always
// have its own.
func start(ctx context.Context, opts Options) (*Servers, error) {
	if opts.Dir == "" {
		return nil, errors.New("start servers: no directory was given")
	}
	k := &stack{dir: opts.Dir, log: opts.Log}
	if err := k.prepare(); err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	unlock, err := k.lockStart(ctx)
	if err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	defer unlock()
	fresh, err := k.ensureState(ctx)
	if err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	s := &Servers{stack: k, mayMove: fresh || !opts.KeepPorts}
	if s.lock, s.onlyUser, err = k.lockAsUser(); err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	if err := s.run(ctx, opts); err != nil {
		s.Release()
		return nil, err
	}
	// The start lock is still held, so no other test can join and create a database that looks like
	// one of a killed test.
	if opts.sweep && s.started && s.onlyUser {
		if err := s.sweep(ctx); err != nil {
			s.Release()
			return nil, fmt.Errorf("start servers: %w", err)
		}
	}
	return s, nil
}

// run starts the missing servers; the caller holds the start lock. It starts the watcher first, so
// that servers end even if this process crashes during the start.
func (s *Servers) run(ctx context.Context, opts Options) error {
	k := s.stack
	servers := []string{"postgres", "rabbitmq"}
	if opts.postgresOnly {
		servers = servers[:1]
	}
	running := slices.ContainsFunc(servers, k.alive)
	if err := k.watch(opts, running); err != nil {
		return fmt.Errorf("start servers: %w", err)
	}
	begin := time.Now()
	dead := slices.DeleteFunc(slices.Clone(servers), k.ready)
	if len(dead) > 0 {
		s.started = true
		if err := k.checkInstalled(dead); err != nil {
			return err
		}
		k.logf("starting %v in %s", dead, k.dir)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, name := range dead {
		group.Go(func() error { return k.start(ctx, name, s.mayMove) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if len(dead) > 0 {
		k.logf("started %v in %.1f s", dead, time.Since(begin).Seconds())
	}
	s.describe(servers)
	return nil
}

// describe sets the exported fields.
func (s *Servers) describe(servers []string) {
	k := s.stack
	pids := map[string]int{}
	for _, name := range servers {
		pids[name], _ = k.pid(name)
	}
	s.PIDs = pids
	s.PostgresURL = k.postgresURL()
	if slices.Contains(servers, "rabbitmq") {
		s.AMQPURL = k.amqpURL()
		s.ManagementURL = k.managementURL()
	}
}

// Running returns the servers that run in a directory. It starts nothing and does not keep the
// servers alive. It returns [ErrNotRunning] if one of them does not run.
func Running(dir string) (*Servers, error) {
	k := &stack{dir: dir}
	if _, err := os.Stat(k.path("state.json")); err != nil {
		return nil, fmt.Errorf("find servers in %s: %w", dir, ErrNotRunning)
	}
	if err := k.load(); err != nil {
		return nil, fmt.Errorf("find servers in %s: %w", dir, err)
	}
	servers := []string{"postgres", "rabbitmq"}
	for _, name := range servers {
		if !k.ready(name) {
			return nil, fmt.Errorf("find servers in %s: %s: %w", dir, name, ErrNotRunning)
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
	return Stop(s.stack.dir)
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
	k := &stack{dir: dir}
	if _, err := os.Stat(k.path("start.lock")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	unlock, err := k.lockStart(ctx)
	if err != nil {
		return fmt.Errorf("stop servers: %w", err)
	}
	defer unlock()
	if err := k.endWatcher(ctx); err != nil {
		return fmt.Errorf("stop servers: %w", err)
	}
	if err := k.script(ctx, "stop", "rabbitmq", "epmd", "postgres"); err != nil {
		return fmt.Errorf("stop servers: %w", err)
	}
	if err := k.releasePorts(ctx); err != nil {
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

// lingerText returns the linger time in the format that the watcher reads.
func lingerText(opts Options) string {
	if opts.Detached {
		return "never"
	}
	return strconv.Itoa(int(opts.Linger / time.Second))
}
