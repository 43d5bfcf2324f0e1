package localrun

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// container is a server in a container, whose name is that of the folder and of the server.
type container struct {
	runtime string // docker or podman, which have the same commands
	name    string
	folder  folder
}

// image is what runs in a container.
type image struct {
	name    string
	ports   map[string]int // in the container, to those on 127.0.0.1
	env     []string
	command []string
}

// postgresImage runs the release that compose.yaml runs.
func postgresImage(c state) image {
	return image{name: "docker.io/library/postgres:17", ports: map[string]int{"5432": c.PostgresPort},
		env: []string{"POSTGRES_USER=" + postgresUser, "POSTGRES_DB=postgres",
			"POSTGRES_PASSWORD=" + c.PostgresPassword},
		command: []string{"-c", "max_connections=300", "-c", "wal_level=logical",
			"-c", "max_replication_slots=64", "-c", "max_wal_senders=64", "-c", "timezone=UTC"}}
}

// rabbitMQImage runs the release that compose.yaml runs, with the management API.
func rabbitMQImage(c state) image {
	return image{name: "docker.io/library/rabbitmq:4-management",
		ports: map[string]int{"5672": c.AMQPPort, "15672": c.ManagementPort},
		env: []string{"RABBITMQ_DEFAULT_USER=" + amqpUser, "RABBITMQ_DEFAULT_PASS=" + c.AMQPPassword,
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-rabbit max_message_size 1048576"}}
}

// containerRuntime returns the container runtime of this machine whose daemon answers, or "".
func containerRuntime(ctx context.Context) string {
	for _, name := range []string{"docker", "podman"} {
		if exec.CommandContext(ctx, name, "info").Run() == nil {
			return name
		}
	}
	return ""
}

func (s script) container(server string) container {
	return container{s.runtime, filepath.Base(string(s.folder)) + "-" + server, s.folder}
}

// start starts the container with the data that it had. If it does not exist, or has other ports,
// start creates it.
func (c container) start(ctx context.Context, i image) error {
	if c.publishes(i) {
		return c.do(ctx, "start", c.name)
	}
	_ = c.do(ctx, "rm", "--force", "--volumes", c.name) // an error means that there is none
	// The command line of a program is visible to everybody, a file is not.
	secrets := filepath.Base(c.name) + ".env"
	if err := c.folder.write(secrets, []byte(strings.Join(i.env, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	args := []string{"run", "--detach", "--name", c.name, "--env-file", c.folder.path(secrets)}
	for inside, outside := range i.ports {
		args = append(args, "--publish", fmt.Sprintf("127.0.0.1:%d:%s", outside, inside))
	}
	return c.do(ctx, append(append(args, i.name), i.command...)...)
}

// publishes reports whether the container exists and has the ports of the image, running or not.
func (c container) publishes(i image) bool {
	out, err := exec.Command(c.runtime, "inspect", "--format",
		`{{range $in, $out := .HostConfig.PortBindings}}{{$in}}={{(index $out 0).HostPort}} {{end}}`,
		c.name).Output()
	for inside, outside := range i.ports {
		if err != nil || !strings.Contains(" "+string(out), fmt.Sprintf(" %s/tcp=%d ", inside, outside)) {
			return false
		}
	}
	return true
}

func (c container) runs() bool {
	out, err := exec.Command(c.runtime, "inspect", "--format", "{{.State.Running}}", c.name).Output()
	return err == nil && strings.TrimSpace(string(out)) == "true"
}

func (c container) do(ctx context.Context, args ...string) error {
	var failed *exec.ExitError
	_, err := exec.CommandContext(ctx, c.runtime, args...).Output()
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", c.runtime, args[0], err)
	}
	return nil
}
