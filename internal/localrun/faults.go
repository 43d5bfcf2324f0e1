package localrun

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
func (s *Servers) KillRabbitMQ() error { return s.kill("rabbitmq") }

// RestartPostgres stops PostgreSQL, if it runs, and starts it on the same port with the same data.
func (s *Servers) RestartPostgres(ctx context.Context) error { return s.restart(ctx, "postgres") }

// RestartRabbitMQ stops RabbitMQ, if it runs, and starts it on the same ports with the same data.
func (s *Servers) RestartRabbitMQ(ctx context.Context) error { return s.restart(ctx, "rabbitmq") }

func (s *Servers) kill(name string) error {
	if s.Given {
		return fmt.Errorf("kill %s: %w", name, errGiven)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	unlock, err := s.stack.folder.lockStart(ctx)
	if err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	defer unlock()
	if err := s.stack.server(name).end(ctx, "kill"); err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	return nil
}

func (s *Servers) restart(ctx context.Context, name string) error {
	if s.Given {
		return fmt.Errorf("restart %s: %w", name, errGiven)
	}
	unlock, err := s.stack.folder.lockStart(ctx)
	if err != nil {
		return fmt.Errorf("restart %s: %w", name, err)
	}
	defer unlock()
	one := s.stack.server(name)
	if err := one.end(ctx, "stop"); err != nil {
		return fmt.Errorf("restart %s: %w", name, err)
	}
	if err := one.start(ctx, false); err != nil {
		return err
	}
	if pid, _ := one.pid(); pid != 0 {
		s.PIDs[name] = pid
	}
	return nil
}
