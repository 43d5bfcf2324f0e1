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

// stack is the directory of one pair of servers.
type stack struct {
	dir string
	log func(format string, args ...any)

	mu    sync.Mutex // guards state: both servers are started at once
	state state
}

// state is what a restart needs to be the same servers again. It is kept in a
// file which only its owner can read.
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

// tempDir is the place for the directories of servers: the usual one, unless
// the PostgreSQL user cannot get there because a folder on the way is closed.
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

// prepare makes the directory. Others may pass through it, for PostgreSQL runs
// as another user under root, but see nothing in it. Since its name in the
// common folder can be guessed, it must really be ours.
func (k *stack) prepare() error {
	if err := os.Mkdir(k.dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the directory for the servers: %w", err)
	}
	info, err := os.Lstat(k.dir)
	if err != nil {
		return fmt.Errorf("look at the directory for the servers: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a directory of our own: remove it", k.dir)
	}
	if err := os.Chmod(k.dir, 0o711); err != nil { // whatever the umask was
		return fmt.Errorf("open the directory for the servers: %w", err)
	}
	return nil
}

// ensureState reads the state, or makes it. Data without a state is that of
// servers whose passwords nobody knows any more: it goes.
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
			"the state of the servers in %s is damaged: end what runs there and remove it: %w", k.dir, err)
	}
	return nil
}

// save writes the state so that it is there as a whole or not at all.
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

// writeAndSync writes a file that a crash of the machine does not leave half.
func writeAndSync(path string, data []byte, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

// ports are the ports of a server, to be read and changed.
func (s *state) ports(name string) []*int {
	if name == "postgres" {
		return []*int{&s.PostgresPort}
	}
	return []*int{&s.AMQPPort, &s.ManagementPort, &s.DistributionPort, &s.EPMDPort}
}

// portsFree says whether a server can have its ports.
func (k *stack) portsFree(name string) bool { return len(k.takenPorts(name)) == 0 }

// takenPorts are the ports of a server that some program listens on.
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

// movePorts gives a server other ports, because someone else took them.
func (k *stack) movePorts(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := pickPorts(k.state.ports(name)); err != nil {
		return err
	}
	return k.save()
}

// pickPorts finds free ports below those that the kernel gives to outgoing
// connections, which could take a port while its server is restarted.
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
			try := low + int(randomUint32()%uint32(high-low))
			listener, err := listen(try)
			if err != nil {
				continue
			}
			defer listener.Close() //nolint:errcheck // held only so that no port is found twice
			*port, found = try, true
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

// redact takes the secrets out of what a person may see.
func (k *stack) redact(text string) string {
	s := k.current()
	for _, hidden := range []string{s.PostgresPassword, s.AMQPPassword, s.Cookie} {
		if hidden != "" {
			text = strings.ReplaceAll(text, hidden, "xxxxx")
		}
	}
	return text
}

// current is a copy of the state, which the start of the other server may be
// changing.
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
