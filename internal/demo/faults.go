package demo

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	"github.com/quadrille-go/quadrille/internal/devstack"
)

// What tests do to a running stack. None of it is safe for concurrent use.

// Names lists the service processes of the stack, such as "orders-1".
func (s *Stack) Names() []string { return s.names() }

// Kill ends a service process at once, wherever it is.
func (s *Stack) Kill(name string) { s.state.signal(name, syscall.SIGKILL) }

// Revive starts every service process that has ended, each on its old address, and does not wait.
func (s *Stack) Revive(ctx context.Context) error {
	binaries, err := s.binaries(ctx)
	if err != nil {
		return err
	}
	for _, service := range s.services() {
		for i := 1; i <= s.Replicas; i++ {
			name := fmt.Sprintf("%s-%d", service.Name, i)
			if s.state.alive(name) {
				continue
			}
			if err := s.spawn(ctx, name, service.Name, binaries); err != nil {
				return fmt.Errorf("revive %s: %w", name, err)
			}
		}
	}
	return nil
}

// URL is where a replica serves.
func (s *Stack) URL(service string, replica int) string {
	return "http://" + s.state.address(fmt.Sprintf("%s-%d", service, replica))
}

// SimulatorsURL is where the outside world is.
func (s *Stack) SimulatorsURL() string { return "http://" + s.state.address(simulators) }

// DatabaseURL is the address of a service's database.
func (s *Stack) DatabaseURL(service string) string { return s.databaseURL(service) }

// Backends are the servers of the stack.
func (s *Stack) Backends() *devstack.Servers { return s.servers }

// Tails are the ends of the logs of all services, for a test that failed.
func (s *Stack) Tails() string {
	var b strings.Builder
	for _, name := range s.names() {
		fmt.Fprintf(&b, "%s, alive %t, ends with:\n%s\n", name, s.state.alive(name), s.tail(name))
	}
	return b.String()
}
