package localrun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// stack is a PostgreSQL and a RabbitMQ that run together in a folder.
type stack struct {
	folder   folder
	settings *settings
	script   script
	log      func(format string, args ...any)
}

func newStack(dir string, log func(format string, args ...any)) *stack {
	f := folder(dir)
	return &stack{folder: f, settings: &settings{folder: f}, script: script{folder: f}, log: log}
}

func (k *stack) logf(format string, args ...any) {
	if k.log != nil {
		k.log(format, args...)
	}
}

// servers returns both servers, or PostgreSQL alone.
func (k *stack) servers(postgresOnly bool) []*server {
	common := server{folder: k.folder, settings: k.settings, script: k.script, logf: k.logf}
	if postgresOnly {
		return []*server{postgres(common)}
	}
	return []*server{postgres(common), rabbitMQ(common)}
}

// server returns one of the servers.
func (k *stack) server(name string) *server {
	all := k.servers(false)
	return all[slices.IndexFunc(all, func(s *server) bool { return s.name == name })]
}

// ensureState reads the state, or creates it. It then removes existing data, whose passwords were
// in the lost state.
func (k *stack) ensureState(ctx context.Context) (fresh bool, _ error) {
	err := k.load()
	if !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if err := k.script.run(ctx, "kill", "rabbitmq", "epmd", "postgres"); err != nil {
		return false, err
	}
	for _, name := range []string{"rabbitmq", "postgres"} {
		if err := os.RemoveAll(k.folder.path(name)); err != nil {
			return false, fmt.Errorf("remove the data of servers whose passwords are lost: %w", err)
		}
	}
	return true, k.settings.create()
}

// load reads the settings and how the servers are run.
func (k *stack) load() error {
	err := k.settings.load()
	k.script.runtime = k.settings.current().Runtime
	return err
}

// chooseRuntime decides how missing servers are started: as installed programs, or else as
// containers where that is allowed and possible. The choice is kept with the data.
func (k *stack) chooseRuntime(ctx context.Context, dead []*server, containers bool) error {
	if k.script.runtime != "" {
		return nil
	}
	missing := checkInstalled(dead)
	if missing == nil || !containers {
		return missing
	}
	if k.script.runtime = containerRuntime(ctx); k.script.runtime == "" {
		return fmt.Errorf("%w, or start a container runtime (docker or podman): none answers", missing)
	}
	for _, s := range dead {
		s.script.runtime = k.script.runtime
	}
	return k.settings.useRuntime(k.script.runtime)
}

// start starts those servers that are not ready; the caller holds the start lock.
func (k *stack) start(ctx context.Context, dead []*server, mayMove bool) error {
	if len(dead) == 0 {
		return nil
	}
	var names []string
	for _, s := range dead {
		names = append(names, s.name)
	}
	begin := time.Now()
	k.logf("starting %s in %s", strings.Join(names, " and "), k.folder)
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range dead {
		group.Go(func() error { return s.start(ctx, mayMove) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	k.logf("started %s in %.1f s", strings.Join(names, " and "), time.Since(begin).Seconds())
	return nil
}

// stop stops the servers and gives up the ports that another program has taken.
func (k *stack) stop(ctx context.Context) error {
	loaded := k.load() // an error means that no ports are known
	if err := k.script.endWatcher(ctx); err != nil {
		return err
	}
	if err := k.script.run(ctx, "stop", "rabbitmq", "epmd", "postgres"); err != nil {
		return err
	}
	if loaded != nil {
		return nil
	}
	for _, s := range k.servers(false) {
		if err := s.claimPorts(ctx, true); err != nil {
			return err
		}
	}
	return nil
}

// Discard ends the servers of a folder and removes their data. It kills RabbitMQ, which is faster
// than an orderly stop.
func Discard(dir string) error {
	k := newStack(dir, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	unlock, err := k.folder.lockStart(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	_ = k.load() // an error means that the servers are processes, if there are any
	if err := k.script.endWatcher(ctx); err != nil {
		return err
	}
	if err := k.script.run(ctx, "kill", "rabbitmq", "epmd"); err != nil {
		return err
	}
	// A killed PostgreSQL would leave shared memory behind.
	if err := k.script.run(ctx, "stop", "postgres"); err != nil {
		return err
	}
	if err := k.script.run(ctx, "drop", "rabbitmq", "postgres"); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// TempDir returns the parent of the directories of servers: the usual directory for temporary
// files, or /tmp if the user postgres may not enter that.
func TempDir() string {
	dir := os.TempDir()
	if os.Getuid() != 0 {
		return dir
	}
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return "/tmp"
		}
		if at == filepath.Dir(at) {
			return dir
		}
	}
}
