package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// simulators is the name of the process that simulates the payment provider and the carrier.
const simulators = "simulators"

// startOne starts the simulators or a replica of a service with its settings.
func (s *Stack) startOne(ctx context.Context, name, binaries string) error {
	if name == simulators {
		env := []string{"QUADRILLE_SIMULATORS_LISTEN=" + s.processes.Address(simulators)}
		return s.processes.Start(ctx, simulators, filepath.Join(binaries, simulators), env)
	}
	service := name[:strings.LastIndexByte(name, '-')]
	prefix := "QUADRILLE_" + strings.ToUpper(service) + "_"
	outside := "http://" + s.processes.Address(simulators)
	env := []string{
		prefix + "DATABASE_URL=" + s.logins.databaseURL(service),
		prefix + "AMQP_URL=" + s.logins.amqpURL(service),
		prefix + "LISTEN=" + s.processes.Address(name),
		"QUADRILLE_PAYMENTS_PROVIDER_URL=" + outside, "QUADRILLE_SHIPPING_CARRIER_URL=" + outside,
	}
	for _, setting := range []string{
		"QUADRILLE_LOG_LEVEL", "QUADRILLE_ORDER_DEADLINE", "QUADRILLE_SHIPPING_COUNTRIES",
		"QUADRILLE_OUTBOX_KEEP", "QUADRILLE_INBOX_KEEP", "QUADRILLE_IDEMPOTENCY_KEEP",
		"QUADRILLE_BREAKER_OPEN", "QUADRILLE_MIGRATE", "GOMAXPROCS",
	} {
		if value, ok := os.LookupEnv(setting); ok {
			env = append(env, setting+"="+value)
		}
	}
	env = append(env, traceVariables(os.Environ())...)
	return s.processes.Start(ctx, name, filepath.Join(binaries, service), append(env, s.Settings...))
}

// binaries returns the folder with the programs of the services: that of this program, or one built
// from the checkout.
func (s *Stack) binaries(ctx context.Context) (string, error) {
	if self, err := os.Executable(); err == nil {
		if _, err := os.Stat(filepath.Join(filepath.Dir(self), "orders")); err == nil {
			return filepath.Dir(self), nil
		}
	}
	if _, err := os.Stat(filepath.Join(s.Root, "cmd", "orders", "main.go")); err != nil {
		return "",
			fmt.Errorf("the programs of the services are not in the folder of this program, and %s is "+
				"not a checkout to build them from: run make build in a checkout", s.Root)
	}
	folder := filepath.Join(s.dir(), "bin")
	if s.built {
		return folder, nil
	}
	s.Log("building the services")
	build := exec.CommandContext(ctx, "go", "build", "-o", folder+"/", "./cmd/orders",
		"./cmd/payments", "./cmd/inventory", "./cmd/shipping", "./cmd/simulators")
	build.Dir = s.Root
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the services: %w\n%s", err, output)
	}
	s.built = true
	return folder, nil
}

// traceVariables returns the variables of OpenTelemetry in an environment. The name of the service
// is not among them: each service has its own.
func traceVariables(environment []string) []string {
	return slices.DeleteFunc(slices.Clone(environment), func(variable string) bool {
		return !strings.HasPrefix(variable, "OTEL_") ||
			strings.HasPrefix(variable, "OTEL_SERVICE_NAME=")
	})
}
