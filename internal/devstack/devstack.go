// Package devstack starts one private RabbitMQ and one private PostgreSQL from
// the distribution's packages, for the tests, the demo and `quadrille up`.
//
// The servers of a directory are shared by all processes which ask for them,
// listen on 127.0.0.1 only, and end when nobody uses them any more, also when
// the last user crashed: each user holds a shared file lock, which the kernel
// lets go of in every case, and a small script waits for that.
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

// ErrNotRunning says that no servers run in the directory.
var ErrNotRunning = errors.New("no servers run there")

// Options say where servers run and how long they outlive their users.
type Options struct {
	// Dir holds all state of the servers; see [Dir].
	Dir string
	// Log, when given, tells a person what takes so long.
	Log func(format string, args ...any)
	// Detached servers run until they are stopped, whoever uses them.
	Detached bool
	// Linger is how long the servers stay after their last user has gone. It
	// is rounded down to whole seconds.
	Linger time.Duration
	// KeepPorts ends a start with an error when another program has a port that
	// the servers had before, instead of moving them: others know the address.
	KeepPorts bool

	postgresOnly bool // for tests which need no broker: saves its seven seconds
	temporary    bool // the directory goes with its servers
	sweep        bool // what killed tests left behind goes, when nobody else can be using it
}

// Servers are one running RabbitMQ and one running PostgreSQL.
type Servers struct {
	AMQPURL       string         // an administrator's, vhost "/"
	ManagementURL string         // the same administrator's, without a path
	PostgresURL   string         // a superuser's, database "postgres"
	Given         bool           // they came from the environment: not ours to stop
	PIDs          map[string]int // "rabbitmq" and "postgres"; empty when Given

	stack   *stack
	started bool // at least one server was started, not joined
	sole    bool // nobody else used them when they were started or joined
	mayMove bool // a server whose port is taken gets another one

	mu sync.Mutex
	// lock is a bare descriptor, 0 for none: an os.File that is garbage
	// collected is closed, and the servers would end under a running test.
	lock int
}

// Dir returns the directory for the servers of a checkout. It lies outside of
// the checkout, because PostgreSQL refuses to run as root and its own user
// must be able to enter each folder on the way; the checkout may be closed to
// it.
func Dir(checkout, name string) string {
	if abs, err := filepath.Abs(checkout); err == nil {
		checkout = abs
	}
	if real, err := filepath.EvalSymlinks(checkout); err == nil {
		checkout = real
	}
	sum := sha256.Sum256([]byte(checkout))
	return filepath.Join(tempDir(), fmt.Sprintf("quadrille-%d-%s-%s", os.Getuid(),
		hex.EncodeToString(sum[:4]), name))
}

// Start starts the servers of a directory, or joins those which run there
// already. It may be called by any number of processes at once. What has died
// is started again on the same ports with the same data. The servers stay at
// least as long as this process lives, unless someone stops them.
//
// When QUADRILLE_AMQP_URL, QUADRILLE_MANAGEMENT_URL and QUADRILLE_POSTGRES_URL
// are set, these servers are returned and nothing is started.
func Start(ctx context.Context, opts Options) (*Servers, error) {
	given, err := fromEnvironment()
	if given != nil || err != nil {
		return given, err
	}
	return start(ctx, opts)
}

// start is Start without regard to the environment: tests which kill servers
// need their own ones in any case.
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
	if s.lock, s.sole, err = k.use(); err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	if err := s.run(ctx, opts); err != nil {
		s.Release()
		return nil, err
	}
	// while nobody else can join and make what looks like a leftover
	if opts.sweep && s.started && s.sole {
		if err := s.sweep(ctx); err != nil {
			s.Release()
			return nil, fmt.Errorf("start servers: %w", err)
		}
	}
	return s, nil
}

// run brings up all that is lacking, while the start lock is held. The watcher
// comes first, so that servers which were half started end in any case.
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
		if err := k.install(dead); err != nil {
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

// describe fills in the public fields.
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

// Running returns the servers which run in a directory, without starting
// anything and without using them: it does not keep them alive. It returns
// [ErrNotRunning] when one of them is not there.
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

// Stop stops the servers, whoever else uses them. Given servers are left alone.
func (s *Servers) Stop() error {
	if s.Given {
		return nil
	}
	s.Release()
	return Stop(s.stack.dir)
}

// Release ends the use of the servers: when nobody else uses them they end
// after the linger time. The end of the process does the same.
func (s *Servers) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock != 0 {
		_ = syscall.Close(s.lock) // the lock is gone with the descriptor in any case
		s.lock = 0
	}
}

// Stop stops all servers of a directory, also half of a pair. It is no error
// when none run.
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

// fromEnvironment returns the servers that the environment gives. The address
// of PostgreSQL is what tells: the other two are also in the settings that
// a running stack hands to a person's shell, and must not turn the next start
// into one on that stack's servers.
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
	return nil, errors.New("start servers: QUADRILLE_AMQP_URL, QUADRILLE_MANAGEMENT_URL and " +
		"QUADRILLE_POSTGRES_URL belong together: set all three, or not the last to start private servers")
}

// lingerText is what the watcher reads.
func lingerText(opts Options) string {
	if opts.Detached {
		return "never"
	}
	return strconv.Itoa(int(opts.Linger / time.Second))
}
