package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// sharedLinger keeps the servers of the tests between two runs of `go test`, since a cold start
// takes several seconds.
const sharedLinger = 10 * time.Minute

var shared struct {
	sync.Mutex
	servers *Servers
	err     error
}

// Shared returns the servers that all tests of this checkout share, in all their processes. The
// first call starts them. If they cannot be started, Shared fails the test, since a skipped test
// would prove nothing.
func Shared(t testing.TB) *Servers {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.servers == nil && shared.err == nil {
		shared.servers, shared.err = startShared(t)
	}
	if shared.err != nil {
		t.Fatalf("the servers for the tests cannot be started (scripts/install-servers.sh or `make "+
			"test` installs missing programs): %v", shared.err)
	}
	return shared.servers
}

func startShared(t testing.TB) (*Servers, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	s, err := Start(ctx, Options{Dir: Dir(root, "test"), Linger: sharedLinger, Log: t.Logf,
		sweep: true})
	if err != nil {
		return nil, err
	}
	if s.stack != nil {
		s.stack.log = nil // the test ends before the servers do
	}
	return s, nil
}

// moduleRoot returns the highest directory with a go.mod, at or above the working directory, which
// under `go test` is that of the package. A module inside another one shares its servers.
func moduleRoot() (root string, err error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			root = dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	if root == "" {
		return "", errors.New("there is no go.mod in this directory or above it")
	}
	return root, nil
}

// Private starts servers for this test alone, which may kill and restart them. It takes several
// seconds. It ignores addresses in the environment. At the end of the test, or if the test crashes,
// the servers end and their data is removed.
func Private(t testing.TB) *Servers {
	t.Helper()
	return private(t, Options{})
}

// PrivatePostgres does the same as [Private] without a broker, which takes one second.
func PrivatePostgres(t testing.TB) *Servers {
	t.Helper()
	return private(t, Options{postgresOnly: true})
}

func private(t testing.TB, opts Options) *Servers {
	t.Helper()
	dir, err := os.MkdirTemp(tempDir(), "quadrille-private-")
	if err != nil {
		t.Fatalf("create a directory for private servers: %v", err)
	}
	opts.Dir, opts.temporary, opts.Log = dir, true, t.Logf
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s, err := start(ctx, opts)
	t.Cleanup(func() {
		if err := discard(dir); err != nil {
			t.Errorf("end the private servers: %v", err)
		}
		if s != nil {
			s.Release() // before discard, the watcher would remove the directory at the same time
		}
	})
	if err != nil {
		t.Fatalf("start private servers: %v", err)
	}
	return s
}

// Addresses returns n addresses on this machine for programs that listen later. Their ports are
// free and outside the range from which the kernel assigns ports.
func Addresses(t testing.TB, n int) []string {
	t.Helper()
	ports, addresses := make([]*int, n), make([]string, n)
	for i := range ports {
		ports[i] = new(int)
	}
	if err := pickPorts(ports); err != nil {
		t.Fatal(err)
	}
	for i, port := range ports {
		addresses[i] = fmt.Sprintf("127.0.0.1:%d", *port)
	}
	return addresses
}

// discard ends servers and removes their data. It kills RabbitMQ, which is faster than an orderly
// stop.
func discard(dir string) error {
	k := &stack{dir: dir}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	unlock, err := k.lockStart(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := k.endWatcher(ctx); err != nil {
		return err
	}
	if err := k.script(ctx, "kill", "rabbitmq", "epmd"); err != nil {
		return err
	}
	// A killed PostgreSQL would leave shared memory behind.
	if err := k.script(ctx, "stop", "postgres"); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
