// Package servertest gives tests servers of package localrun, and on them databases, virtual hosts
// and broker users of their own, which are removed at the end of the test. Package quadrilletest is
// its public face; the tests of the kit use more of it, such as templates of migrated databases.
package servertest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/localrun"
)

// sharedLinger keeps the servers of the tests between two runs of `go test`, since a cold start
// takes several seconds.
const sharedLinger = 10 * time.Minute

// startTimeout includes the time in which a container runtime fetches its images.
const startTimeout = 5 * time.Minute

var shared struct {
	sync.Mutex
	servers *localrun.Servers
	err     error
}

// Shared returns the servers that all tests of this module share, in all their processes. The first
// call starts them, unless the environment has their addresses. If they cannot be started, Shared
// fails the test, since a skipped test would prove nothing.
func Shared(t testing.TB) *localrun.Servers {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.servers == nil && shared.err == nil {
		shared.servers, shared.err = startShared(t)
	}
	if shared.err != nil {
		t.Fatalf("the servers for the tests cannot be started: %v", shared.err)
	}
	return shared.servers
}

func startShared(t testing.TB) (*localrun.Servers, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return localrun.Start(ctx, localrun.Options{Dir: localrun.Dir(root, "test"),
		Linger: sharedLinger, Log: t.Logf, Containers: true, Sweep: sweep})
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
func Private(t testing.TB) *localrun.Servers {
	t.Helper()
	return private(t, localrun.Options{})
}

// PrivatePostgres does the same as [Private] without a broker, which takes one second.
func PrivatePostgres(t testing.TB) *localrun.Servers {
	t.Helper()
	return private(t, localrun.Options{PostgresOnly: true})
}

func private(t testing.TB, opts localrun.Options) *localrun.Servers {
	t.Helper()
	dir, err := os.MkdirTemp(localrun.TempDir(), "quadrille-private-")
	if err != nil {
		t.Fatalf("create a directory for private servers: %v", err)
	}
	opts.Dir, opts.Private, opts.Containers, opts.Log = dir, true, true, t.Logf
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	s, err := localrun.Start(ctx, opts)
	t.Cleanup(func() {
		if err := localrun.Discard(dir); err != nil {
			t.Errorf("end the private servers: %v", err)
		}
		if s != nil {
			s.Release() // before Discard, the watcher would remove the directory at the same time
		}
	})
	if err != nil {
		t.Fatalf("start private servers: %v", err)
	}
	return s
}

// Addresses returns n addresses on this machine for programs that listen later; see
// localrun.Addresses.
func Addresses(t testing.TB, n int) []string {
	t.Helper()
	addresses, err := localrun.Addresses(n)
	if err != nil {
		t.Fatal(err)
	}
	return addresses
}
