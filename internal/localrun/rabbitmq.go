package localrun

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbitmqPattern matches the server's own start script. The wrapper of the distribution in
// /usr/sbin would switch to another user and directory.
const rabbitmqPattern = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"

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
	if err := makeDir(s.folder.path("epmd"), os.Getuid(), os.Getgid()); err != nil {
		return err
	}
	c := s.settings.current()
	node := Node{Name: "quadrille@localhost", Dir: s.folder.path("rabbitmq"), AMQPPort: c.AMQPPort,
		ManagementPort: c.ManagementPort, DistributionPort: c.DistributionPort, EPMDPort: c.EPMDPort,
		Password: c.AMQPPassword, Cookie: c.Cookie}
	cmd, err := node.Command()
	if err != nil {
		return err
	}
	if err := launchEPMD(s); err != nil {
		return err
	}
	return s.spawn("rabbitmq", cmd)
}

func launchEPMD(s *server) error {
	cmd, err := EPMDCommand(s.folder.path("epmd"), s.settings.current().EPMDPort)
	if err != nil {
		return err
	}
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
