package devstack

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var errGiven = errors.New("the addresses of these servers are from the environment, and only " +
	"servers that this package has started may be ended")

// KillPostgres ends PostgreSQL without warning, like a crash, and returns when all its processes
// are gone.
func (s *Servers) KillPostgres() error { return s.kill("postgres") }

// KillRabbitMQ ends RabbitMQ without warning, like a crash, and returns when all its processes are
// gone.
func (s *Servers) KillRabbitMQ() error { return s.kill("rabbitmq", "epmd") }

// RestartPostgres stops PostgreSQL, if it runs, and starts it on the same port with the same data.
func (s *Servers) RestartPostgres(ctx context.Context) error { return s.restart(ctx, "postgres") }

// RestartRabbitMQ stops RabbitMQ, if it runs, and starts it on the same ports with the same data.
func (s *Servers) RestartRabbitMQ(ctx context.Context) error {
	return s.restart(ctx, "rabbitmq", "epmd")
}

func (s *Servers) kill(names ...string) error {
	if s.Given {
		return fmt.Errorf("kill %s: %w", names[0], errGiven)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	unlock, err := s.stack.lockStart(ctx)
	if err != nil {
		return fmt.Errorf("kill %s: %w", names[0], err)
	}
	defer unlock()
	if err := s.stack.script(ctx, "kill", names...); err != nil {
		return fmt.Errorf("kill %s: %w", names[0], err)
	}
	return nil
}

func (s *Servers) restart(ctx context.Context, names ...string) error {
	if s.Given {
		return fmt.Errorf("restart %s: %w", names[0], errGiven)
	}
	unlock, err := s.stack.lockStart(ctx)
	if err != nil {
		return fmt.Errorf("restart %s: %w", names[0], err)
	}
	defer unlock()
	if err := s.stack.script(ctx, "stop", names...); err != nil {
		return fmt.Errorf("restart %s: %w", names[0], err)
	}
	if err := s.stack.start(ctx, names[0], false); err != nil {
		return err
	}
	s.PIDs[names[0]], _ = s.stack.pid(names[0])
	return nil
}
