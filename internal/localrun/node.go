package localrun

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// rabbitmqSettings limits the size of messages to a value that tests can exceed.
const rabbitmqSettings = `listeners.tcp.1 = 127.0.0.1:%d
management.tcp.ip = 127.0.0.1
management.tcp.port = %d
loopback_users = none
default_user = %s
default_pass = %s
max_message_size = 1048576
disk_free_limit.absolute = 50MB
`

// rabbitmqErlang lets both schedulers sleep when idle, since the tests need the same machine, and
// accepts connections of other nodes from this machine only.
const rabbitmqErlang = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none" +
	" -kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"

// Node is a RabbitMQ process with a directory, a name and ports of its own. Nodes with the same
// cookie and the same port of epmd can form a cluster.
type Node struct {
	Name             string // such as quadrille@localhost
	Dir              string
	AMQPPort         int
	ManagementPort   int
	DistributionPort int
	EPMDPort         int
	Password         string // of the administrator
	Cookie           string
	Settings         string // more lines for rabbitmq.conf
}

// Command writes the files of the node and returns the command that runs it. An epmd must run
// before: one that RabbitMQ had started itself would stay when the node ends.
func (n Node) Command() (*exec.Cmd, error) {
	uid, gid := os.Getuid(), os.Getgid()
	if err := makeDir(n.Dir, uid, gid); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"rabbitmq.conf": fmt.Sprintf(rabbitmqSettings, n.AMQPPort, n.ManagementPort, amqpUser,
			n.Password) + n.Settings,
		"advanced.config": "[{rabbit, [{quorum_commands_soft_limit, 256}]}].\n",
		"enabled_plugins": "[rabbitmq_management].\n",
		".erlang.cookie":  n.Cookie,
	} {
		if err := WriteFor(n.path(name), text, uid, gid); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(n.path(".erlang.cookie"), 0o400); err != nil {
		return nil, fmt.Errorf("set the mode of the Erlang cookie: %w", err)
	}
	cmd := exec.Command(newest(rabbitmqPattern))
	cmd.Dir = n.Dir
	cmd.Env = environment(n.Dir,
		"RUNNING_UNDER_SYSTEMD=true", // the script then executes the server in its own process
		"RABBITMQ_NODENAME="+n.Name,
		"RABBITMQ_CONF_ENV_FILE="+n.path("none"),
		"RABBITMQ_CONFIG_FILE="+n.path("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+n.path("advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+n.path("enabled_plugins"),
		"RABBITMQ_MNESIA_BASE="+n.path("data"),
		"RABBITMQ_LOG_BASE="+n.path("log"),
		"RABBITMQ_LOGS=-", // to the log file of spawn
		"RABBITMQ_PID_FILE="+n.path("pid"),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(n.DistributionPort),
		"RABBITMQ_SCHEDULER_BIND_TYPE=u", // two servers must not share one processor
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+rabbitmqErlang,
		"ERL_EPMD_PORT="+strconv.Itoa(n.EPMDPort),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_CRASH_DUMP_BYTES=0",
	)
	return cmd, nil
}

func (n Node) path(name string) string { return filepath.Join(n.Dir, name) }

// AMQPURL is that of the administrator, vhost "/".
func (n Node) AMQPURL() string {
	return fmt.Sprintf("amqp://%s:%s@%s/", amqpUser, n.Password, local(n.AMQPPort))
}

// ManagementURL is that of the administrator, without a path.
func (n Node) ManagementURL() string {
	return fmt.Sprintf("http://%s:%s@%s", amqpUser, n.Password, local(n.ManagementPort))
}

// Ping returns nil if the node accepts a connection and its management API answers.
func (n Node) Ping(ctx context.Context) error {
	return pingRabbitMQ(ctx, n.AMQPURL(), n.ManagementURL())
}

// EPMDCommand returns the command that runs epmd, the name server of Erlang, on this machine only.
func EPMDCommand(dir string, port int) (*exec.Cmd, error) {
	path, err := exec.LookPath("epmd")
	if err != nil {
		return nil, fmt.Errorf("start epmd: %w", err)
	}
	cmd := exec.Command(path, "-address", "127.0.0.1", "-port", strconv.Itoa(port))
	cmd.Dir = dir
	cmd.Env = environment(dir)
	return cmd, nil
}
