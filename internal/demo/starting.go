package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
)

// wanted lists the processes of an up: the outside world first, and the replicas of each service.
func (s *Stack) wanted() []string {
	names := []string{simulators}
	for _, service := range demoServices() {
		for i := 1; i <= s.Replicas && !slices.Contains(s.Without, service.Name); i++ {
			names = append(names, fmt.Sprintf("%s-%d", service.Name, i))
		}
	}
	return names
}

// startServices starts the processes that do not run and waits until all are ready. One that cannot
// be started, or does not become ready, stops no other: it is in s.missing, and the error names it.
func (s *Stack) startServices(ctx context.Context) error {
	binaries, err := s.binaries(ctx)
	if err != nil {
		return err
	}
	wanted := s.wanted()
	failed := map[string]error{}
	for _, name := range wanted {
		if !s.processes.Alive(name) {
			failed[name] = s.startOne(ctx, name, binaries)
		}
	}
	if err := errors.Join(s.processes.Save(), s.writePIDs()); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, name := range s.started() {
		// An earlier up may have wanted more; of those only what lives is waited for.
		if failed[name] == nil && (slices.Contains(wanted, name) || s.processes.Alive(name)) {
			failed[name] = s.processes.AwaitReady(ready, name, "/readyz?full=1")
		}
	}
	return s.judge(failed)
}

// judge notes which processes failed, and returns one error that names them. The error has
// ExitPartial when others are ready.
func (s *Stack) judge(failed map[string]error) error {
	s.missing = nil
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		if err := failed[name]; err != nil {
			s.missing = append(s.missing, admin.NewMissing(name, err))
			errs = append(errs, fmt.Errorf("start %s: %w", name, err))
		}
	}
	if err := errors.Join(errs...); err == nil || len(errs) == len(failed) {
		return err
	}
	return cli.Error{Code: cli.ExitPartial, Err: errors.Join(errs...),
		Next: "the other processes are up; repair the cause, and start what is missing with: " +
			s.App.Command("up --detach")}
}
