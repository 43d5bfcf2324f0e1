package localrun

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
)

const (
	postgresUser = "quadrille"
	amqpUser     = "admin"
)

// settings are the ports and secrets of the servers of a folder. It is safe for concurrent use,
// since both servers start at the same time.
type settings struct {
	folder folder

	mu    sync.Mutex
	state state
}

// state has the ports and secrets of the servers, so that a restart keeps them. It is stored in
// a file that only its owner can read.
type state struct {
	PostgresPort     int    `json:"postgres_port"`
	AMQPPort         int    `json:"amqp_port"`
	ManagementPort   int    `json:"management_port"`
	DistributionPort int    `json:"distribution_port"`
	EPMDPort         int    `json:"epmd_port"`
	PostgresPassword string `json:"postgres_password"`
	AMQPPassword     string `json:"amqp_password"`
	Cookie           string `json:"cookie"`
	// Runtime is that of containers, if the servers are no processes.
	Runtime string `json:"runtime,omitempty"`
}

// create makes new settings and stores them.
func (s *settings) create() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state{PostgresPassword: newSecret(), AMQPPassword: newSecret(), Cookie: newSecret()}
	if err := pickPorts(append(s.state.ports("postgres"), s.state.ports("rabbitmq")...)); err != nil {
		return err
	}
	return s.save()
}

// load reads the settings.
func (s *settings) load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := os.ReadFile(s.folder.path("state.json"))
	if err != nil {
		return fmt.Errorf("read the state of the servers: %w", err)
	}
	if err := json.Unmarshal(data, &s.state); err != nil {
		return fmt.Errorf(
			"the state of the servers in %s is damaged: end the servers there and remove the directory: %w",
			s.folder, err)
	}
	return nil
}

func (s *settings) save() error {
	data, err := json.MarshalIndent(s.state, "", "  ")
	if err != nil {
		return fmt.Errorf("write the state of the servers: %w", err)
	}
	return s.folder.write("state.json", data, 0o600)
}

// current returns a copy of the state, which the start of the other server may be changing.
func (s *settings) current() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// ports returns pointers to the ports of a server.
func (s *state) ports(name string) []*int {
	if name == "postgres" {
		return []*int{&s.PostgresPort}
	}
	return []*int{&s.AMQPPort, &s.ManagementPort, &s.DistributionPort, &s.EPMDPort}
}

// takenPorts returns the ports of a server on which a program listens.
func (s *settings) takenPorts(name string) (taken portList) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, port := range s.state.ports(name) {
		if !isFree(*port) {
			taken = append(taken, *port)
		}
	}
	return taken
}

type portList []int

func (l portList) String() string { return strings.Trim(fmt.Sprint([]int(l)), "[]") }

// movePorts picks and saves other ports for a server.
func (s *settings) movePorts(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := pickPorts(s.state.ports(name)); err != nil {
		return err
	}
	return s.save()
}

// useRuntime saves that the servers run as containers.
func (s *settings) useRuntime(runtime string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Runtime = runtime
	return s.save()
}

// redact replaces the secrets in a text for a person.
func (s *settings) redact(text string) string {
	c := s.current()
	for _, hidden := range []string{c.PostgresPassword, c.AMQPPassword, c.Cookie} {
		if hidden != "" {
			text = strings.ReplaceAll(text, hidden, "xxxxx")
		}
	}
	return text
}

func (s *settings) postgresURL() string {
	c := s.current()
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/postgres?sslmode=disable", postgresUser,
		c.PostgresPassword, c.PostgresPort)
}

func (s *settings) amqpURL() string {
	c := s.current()
	return fmt.Sprintf("amqp://%s:%s@127.0.0.1:%d/", amqpUser, c.AMQPPassword, c.AMQPPort)
}

func (s *settings) managementURL() string {
	c := s.current()
	return fmt.Sprintf("http://%s:%s@127.0.0.1:%d", amqpUser, c.AMQPPassword, c.ManagementPort)
}

// newSecret returns a password, which is also a valid part of the name of a database.
func newSecret() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
