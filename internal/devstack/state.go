package devstack

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// stack is the directory of a PostgreSQL and a RabbitMQ that run together.
type stack struct {
	dir string
	log func(format string, args ...any)

	mu    sync.Mutex // guards state: both servers start at the same time
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
}

const (
	postgresUser = "quadrille"
	amqpUser     = "admin"
)

func (k *stack) path(elem ...string) string {
	return filepath.Join(append([]string{k.dir}, elem...)...)
}

func (k *stack) logf(format string, args ...any) {
	if k.log != nil {
		k.log(format, args...)
	}
}

// tempDir returns the parent of the directories of servers: the usual directory for temporary
// files, or /tmp if the user postgres may not enter that.
func tempDir() string {
	dir := os.TempDir()
	if os.Getuid() != 0 {
		return dir
	}
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return "/tmp"
		}
		if at == filepath.Dir(at) {
			return dir
		}
	}
}

// prepare creates the directory. Other users may pass through it, since PostgreSQL runs as another
// user than root, but may not list it. Its name can be guessed, so prepare refuses a directory that
// another user has created.
func (k *stack) prepare() error {
	if err := os.Mkdir(k.dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create the directory for the servers: %w", err)
	}
	info, err := os.Lstat(k.dir)
	if err != nil {
		return fmt.Errorf("check the directory for the servers: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a directory that only this user may write: remove it", k.dir)
	}
	if err := os.Chmod(k.dir, 0o711); err != nil { // the umask may have removed bits
		return fmt.Errorf("set the mode of the directory for the servers: %w", err)
	}
	return nil
}

// ensureState reads the state, or creates it. It then removes existing data, whose passwords were
// in the lost state.
func (k *stack) ensureState(ctx context.Context) (fresh bool, _ error) {
	err := k.load()
	if !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if err := k.script(ctx, "kill", "rabbitmq", "epmd", "postgres"); err != nil {
		return false, err
	}
	for _, name := range []string{"rabbitmq", "postgres"} {
		if err := os.RemoveAll(k.path(name)); err != nil {
			return false, fmt.Errorf("remove the data of servers whose passwords are lost: %w", err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = state{PostgresPassword: secret(), AMQPPassword: secret(), Cookie: secret()}
	if err := pickPorts(append(k.state.ports("postgres"), k.state.ports("rabbitmq")...)); err != nil {
		return false, err
	}
	return true, k.save()
}

// load reads the state.
func (k *stack) load() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	data, err := os.ReadFile(k.path("state.json"))
	if err != nil {
		return fmt.Errorf("read the state of the servers: %w", err)
	}
	if err := json.Unmarshal(data, &k.state); err != nil {
		return fmt.Errorf(
			"the state of the servers in %s is damaged: end the servers there and remove the directory: %w",
			k.dir, err)
	}
	return nil
}

// save writes the state atomically.
func (k *stack) save() error {
	data, err := json.MarshalIndent(k.state, "", "  ")
	if err != nil {
		return fmt.Errorf("write the state of the servers: %w", err)
	}
	return k.write("state.json", data, 0o600)
}

func (k *stack) write(name string, data []byte, mode os.FileMode) error {
	path := k.path(name)
	if err := writeAndSync(path+".new", data, mode); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// writeAndSync writes a file and syncs it, so that a crash of the machine cannot leave half of it
// after the rename.
func writeAndSync(path string, data []byte, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

// ports returns pointers to the ports of a server.
func (s *state) ports(name string) []*int {
	if name == "postgres" {
		return []*int{&s.PostgresPort}
	}
	return []*int{&s.AMQPPort, &s.ManagementPort, &s.DistributionPort, &s.EPMDPort}
}

// portsFree reports whether no program listens on the ports of a server.
func (k *stack) portsFree(name string) bool { return len(k.takenPorts(name)) == 0 }

// takenPorts returns the ports of a server on which a program listens.
func (k *stack) takenPorts(name string) (taken portList) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, port := range k.state.ports(name) {
		listener, err := listen(*port)
		if err != nil {
			taken = append(taken, *port)
			continue
		}
		_ = listener.Close()
	}
	return taken
}

type portList []int

func (l portList) String() string { return strings.Trim(fmt.Sprint([]int(l)), "[]") }

// movePorts picks and saves other ports for a server.
func (k *stack) movePorts(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := pickPorts(k.state.ports(name)); err != nil {
		return err
	}
	return k.save()
}

// pickPorts finds free ports below the range for outgoing connections. A port in that range could
// be taken while its server restarts.
func pickPorts(ports []*int) error {
	low, high := 10000, 32768
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(data), &high)
	}
	if high < low+1000 {
		low, high = 20000, 30000
	}
	for _, port := range ports {
		found := false
		for range 1000 {
			candidate := low + int(randomUint32()%uint32(high-low))
			listener, err := listen(candidate)
			if err != nil {
				continue
			}
			defer listener.Close() //nolint:errcheck // open until the end so that no port is picked twice
			*port, found = candidate, true
			break
		}
		if !found {
			return errors.New("found no free port on 127.0.0.1")
		}
	}
	return nil
}

func listen(port int) (net.Listener, error) {
	return net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
}

func randomUint32() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func secret() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// redact replaces the secrets in a text for a person.
func (k *stack) redact(text string) string {
	s := k.current()
	for _, hidden := range []string{s.PostgresPassword, s.AMQPPassword, s.Cookie} {
		if hidden != "" {
			text = strings.ReplaceAll(text, hidden, "xxxxx")
		}
	}
	return text
}

// current returns a copy of the state, which the start of the other server may be changing.
func (k *stack) current() state {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

func (k *stack) postgresURL() string {
	s := k.current()
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/postgres?sslmode=disable", postgresUser,
		s.PostgresPassword, s.PostgresPort)
}

func (k *stack) amqpURL() string {
	s := k.current()
	return fmt.Sprintf("amqp://%s:%s@127.0.0.1:%d/", amqpUser, s.AMQPPassword, s.AMQPPort)
}

func (k *stack) managementURL() string {
	s := k.current()
	return fmt.Sprintf("http://%s:%s@127.0.0.1:%d", amqpUser, s.AMQPPassword, s.ManagementPort)
}
