package localrun

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbitmqPattern matches the server's own start script. The wrapper of the distribution in
// /usr/sbin would switch to another user and directory.
const rabbitmqPattern = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"

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

// rabbitMQ returns the RabbitMQ of a folder.
func rabbitMQ(common server) *server {
	s := &common
	s.name, s.helpers = "rabbitmq", []string{"epmd"}
	s.home = s.folder.path("rabbitmq")
	s.programs = []string{"rabbitmq-server", "erl", "erlexec", "beam.smp"}
	s.launch = func(ctx context.Context) error {
		if s.script.runtime != "" {
			return s.script.container(s.name).start(ctx, rabbitMQImage(s.settings.current()))
		}
		return launchRabbitMQ(s)
	}
	s.ping = func(ctx context.Context) error {
		return pingRabbitMQ(ctx, s.settings.amqpURL(), s.settings.managementURL())
	}
	return s
}

// launchRabbitMQ starts epmd, the name server of Erlang, and then RabbitMQ. If RabbitMQ started
// epmd itself, epmd would stay when the servers end.
func launchRabbitMQ(s *server) error {
	home, uid, gid := s.folder.path("rabbitmq"), os.Getuid(), os.Getgid()
	for _, dir := range []string{home, s.folder.path("epmd")} {
		if err := makeDir(dir, uid, gid); err != nil {
			return err
		}
	}
	c := s.settings.current()
	for name, text := range map[string]string{
		"rabbitmq.conf": fmt.Sprintf(rabbitmqSettings, c.AMQPPort, c.ManagementPort, amqpUser,
			c.AMQPPassword),
		"advanced.config": "[{rabbit, [{quorum_commands_soft_limit, 256}]}].\n",
		"enabled_plugins": "[rabbitmq_management].\n",
		".erlang.cookie":  c.Cookie,
	} {
		if err := WriteFor(s.folder.path("rabbitmq", name), text, uid, gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(s.folder.path("rabbitmq", ".erlang.cookie"), 0o400); err != nil {
		return fmt.Errorf("set the mode of the Erlang cookie: %w", err)
	}
	if err := launchEPMD(s); err != nil {
		return err
	}
	cmd := exec.Command(newest(rabbitmqPattern))
	cmd.Dir = home
	cmd.Env = environment(home,
		"RUNNING_UNDER_SYSTEMD=true", // the script then executes the server in its own process
		"RABBITMQ_NODENAME=quadrille@localhost",
		"RABBITMQ_CONF_ENV_FILE="+s.folder.path("rabbitmq", "none"),
		"RABBITMQ_CONFIG_FILE="+s.folder.path("rabbitmq", "rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+s.folder.path("rabbitmq", "advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+s.folder.path("rabbitmq", "enabled_plugins"),
		"RABBITMQ_MNESIA_BASE="+s.folder.path("rabbitmq", "data"),
		"RABBITMQ_LOG_BASE="+s.folder.path("rabbitmq", "log"),
		"RABBITMQ_LOGS=-", // to the log file of spawn
		"RABBITMQ_PID_FILE="+s.folder.path("rabbitmq", "pid"),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(c.DistributionPort),
		"RABBITMQ_SCHEDULER_BIND_TYPE=u", // two servers must not share one processor
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+rabbitmqErlang,
		"ERL_EPMD_PORT="+strconv.Itoa(c.EPMDPort),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_CRASH_DUMP_BYTES=0",
	)
	return s.spawn("rabbitmq", cmd)
}

func launchEPMD(s *server) error {
	path, err := exec.LookPath("epmd")
	if err != nil {
		return fmt.Errorf("start epmd: %w", err)
	}
	port := strconv.Itoa(s.settings.current().EPMDPort)
	cmd := exec.Command(path, "-address", "127.0.0.1", "-port", port)
	cmd.Dir = s.folder.path("epmd")
	cmd.Env = environment(cmd.Dir)
	if err := s.spawn("epmd", cmd); err != nil {
		return fmt.Errorf("start epmd: %w", err)
	}
	return nil
}

// pingRabbitMQ returns nil if the broker accepts a connection and the management API, which starts
// later, answers.
func pingRabbitMQ(ctx context.Context, amqpURL, managementURL string) error {
	connection, err := amqp.DialConfig(amqpURL, amqp.Config{
		Dial: func(network, addr string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: 5 * time.Second}
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return conn, conn.SetDeadline(time.Now().Add(5 * time.Second))
		},
	})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := connection.Close(); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return Manage(ctx, managementURL, http.MethodGet, "/api/whoami", nil, nil)
}
