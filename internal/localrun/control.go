package localrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// rabbitmqctlPattern matches the tool that belongs to the server.
const rabbitmqctlPattern = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmqctl"

// ctlTimeout bounds a command of rabbitmqctl, which waits for a node that does not answer.
const ctlTimeout = time.Minute

// RabbitMQCtl runs RabbitMQ's own command-line tool on the broker. It needs a broker that this
// package has started.
func (s *Servers) RabbitMQCtl(ctx context.Context, args ...string) error {
	if s.Given {
		return errors.New("rabbitmqctl: the broker was given, so its node and its cookie are not known")
	}
	ctx, cancel := context.WithTimeout(ctx, ctlTimeout)
	defer cancel()
	k := s.stack
	cmd := exec.CommandContext(ctx, newest(rabbitmqctlPattern), args...)
	if k.script.runtime != "" {
		name := k.script.container("rabbitmq").name
		cmd = exec.CommandContext(ctx, k.script.runtime, append([]string{"exec", name, "rabbitmqctl"},
			args...)...)
	} else {
		cmd.Dir = k.folder.path("rabbitmq")
		cmd.Env = environment(cmd.Dir, "RABBITMQ_NODENAME=quadrille@localhost",
			"RABBITMQ_CONF_ENV_FILE="+k.folder.path("rabbitmq", "none"),
			"ERL_EPMD_PORT="+strconv.Itoa(k.settings.current().EPMDPort))
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // the tool is a script, whose own processes may outlive it
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("rabbitmqctl: %w: %s", err, out.Bytes())
	}
	return nil
}
