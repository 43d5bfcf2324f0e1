package demo

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	"github.com/quadrille-go/quadrille/internal/localrun"
)

// These methods are for tests of a running stack. They are not safe for concurrent use.

// Kill ends a service process with SIGKILL.
func (s *Stack) Kill(name string) { s.processes.Signal(name, syscall.SIGKILL) }

// Revive starts every service process that has ended, each at its old address. It does not wait
// until they are ready.
func (s *Stack) Revive(ctx context.Context) error {
	binaries, err := s.binaries(ctx)
	if err != nil {
		return err
	}
	for _, service := range demoServices() {
		for i := 1; i <= s.Replicas; i++ {
			name := fmt.Sprintf("%s-%d", service.Name, i)
			if s.processes.Alive(name) {
				continue
			}
			if err := s.startOne(ctx, name, binaries); err != nil {
				return fmt.Errorf("revive %s: %w", name, err)
			}
		}
	}
	return nil
}

// URL returns the address of a replica.
func (s *Stack) URL(service string, replica int) string {
	return "http://" + s.processes.Address(fmt.Sprintf("%s-%d", service, replica))
}

// SimulatorsURL returns the address of the simulators.
func (s *Stack) SimulatorsURL() string { return "http://" + s.processes.Address(simulators) }

// DatabaseURL returns the URL of the database of a service.
func (s *Stack) DatabaseURL(service string) string { return s.logins.databaseURL(service) }

// Backends returns the servers of the stack.
func (s *Stack) Backends() *localrun.Servers { return s.servers }

// Tails returns the ends of the logs of all services, for a failed test.
func (s *Stack) Tails() string {
	var b strings.Builder
	for _, name := range s.Names() {
		fmt.Fprintf(&b, "%s, alive %t, ends with:\n%s\n", name, s.processes.Alive(name),
			s.processes.Tail(name))
	}
	return b.String()
}
