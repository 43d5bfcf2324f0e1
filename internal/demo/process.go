package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	pollEvery = 50 * time.Millisecond
	logTail   = 2000 // bytes of a log that are shown when a service does not become ready

	// Ports are chosen below the ephemeral ports of the kernel, so that none is taken when a process
	// restarts.
	firstPort, lastPort = 20000, 32000

	portTimeout    = 20 * time.Second // for a killed process to release its port
	releaseTimeout = 2 * time.Second

	terminate = syscall.SIGTERM
)

// state is the part of a stack that is saved between two commands.
type state struct {
	path      string
	Secrets   map[string]string  `json:"secrets"`
	Ports     map[string]int     `json:"ports"`
	Processes map[string]process `json:"processes"`
}

// process identifies a process by its id and its start time, because the kernel reuses ids.
type process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // in clock ticks since the start of the machine
}

func loadState(dir string) (*state, error) {
	s := &state{path: filepath.Join(dir, "state.json"), Secrets: map[string]string{},
		Ports: map[string]int{}, Processes: map[string]process{}}
	content, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(content, s)
	}
	if err != nil {
		return nil,
			fmt.Errorf("read the state of the stack: %s is damaged: end the processes listed in %s, "+
				"then remove the file: %w",
				s.path, filepath.Join(dir, "pids"), err)
	}
	return s, nil
}

func (s *state) save() error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save state of the stack: %w", err)
	}
	return writeFile(s.path, string(content))
}

func (s *state) secret(name string) string {
	if s.Secrets[name] == "" {
		s.Secrets[name] = newSecret()
	}
	return s.Secrets[name]
}

func (s *state) url(service string) string { return "http://" + s.address(service+"-1") }

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startTime returns the start time of a process in clock ticks. It is empty if the process does not
// exist or is a zombie.
func startTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name of the program is in parentheses and may contain any character.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

func (s *state) alive(name string) bool {
	p := s.Processes[name]
	// A process that ended before its start time was read has an empty one and is not alive.
	return p.PID != 0 && p.Started != "" && startTime(p.PID) == p.Started
}

func (s *state) signal(name string, sig syscall.Signal) {
	if s.alive(name) {
		_ = syscall.Kill(s.Processes[name].PID, sig) // an error means that it has ended
	}
}

// awaitEnd waits until a process has ended, and kills it when ctx is done.
func (s *state) awaitEnd(ctx context.Context, name string) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for s.alive(name) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.signal(name, syscall.SIGKILL)
			ctx = context.Background()
		}
	}
}

// spawner starts processes from one thread that lives as long as this process, because Pdeathsig
// refers to the parent thread, not to the parent process.
type spawner struct {
	once sync.Once
	jobs chan func()
}

func (s *spawner) do(job func()) {
	s.once.Do(func() {
		s.jobs = make(chan func())
		go func() {
			runtime.LockOSThread()
			for job := range s.jobs {
				job()
			}
		}()
	})
	s.jobs <- job
}

// simulators is the name of the process that simulates the payment provider and the carrier.
const simulators = "simulators"

// spawn starts a replica of a service with its settings.
func (s *Stack) spawn(ctx context.Context, name, service, binaries string) error {
	prefix := "QUADRILLE_" + strings.ToUpper(service) + "_"
	outside := "http://" + s.state.address(simulators)
	env := []string{
		prefix + "DATABASE_URL=" + s.databaseURL(service), prefix + "AMQP_URL=" + s.amqpURL(service),
		prefix + "LISTEN=" + s.state.address(name),
		"QUADRILLE_PAYMENTS_PROVIDER_URL=" + outside, "QUADRILLE_SHIPPING_CARRIER_URL=" + outside,
	}
	for _, setting := range []string{
		"QUADRILLE_LOG_LEVEL", "QUADRILLE_ORDER_DEADLINE", "QUADRILLE_SHIPPING_COUNTRIES",
		"QUADRILLE_OUTBOX_KEEP", "QUADRILLE_BREAKER_OPEN", "GOMAXPROCS",
	} {
		if value, ok := os.LookupEnv(setting); ok {
			env = append(env, setting+"="+value)
		}
	}
	return s.start(ctx, name, filepath.Join(binaries, service), append(env, s.Settings...))
}

// start waits until the port of a process is free, starts the process and saves it in the state.
// Its output goes to its log.
func (s *Stack) start(ctx context.Context, name, program string, env []string) error {
	listener, err := s.state.awaitPort(ctx, name, portTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // the process has a copy, with which the port ends
	socket, err := listener.File()
	if err != nil {
		return fmt.Errorf("hand over the address of %s: %w", name, err)
	}
	defer func() { _ = socket.Close() }()
	log, err := os.OpenFile(filepath.Join(s.dir(), "logs", name+".log"),
		os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	command := exec.Command(program)
	command.Dir = s.dir()
	command.Stdout, command.Stderr = log, log
	command.ExtraFiles = []*os.File{socket} // they begin at descriptor 3
	command.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"QUADRILLE_LISTEN_FD=3"}, env...)
	// The process has its own group, so that Ctrl-C reaches only the parent, which stops the services
	// in order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !s.Detached {
		command.SysProcAttr.Pdeathsig = syscall.SIGKILL // in case the parent crashes
	}
	done := make(chan error)
	s.spawner.do(func() { done <- command.Start() })
	if err := <-done; err != nil {
		return err
	}
	s.state.Processes[name] = process{PID: command.Process.Pid,
		Started: startTime(command.Process.Pid)}
	go func() { _ = command.Wait() }() // reap the process
	// The state is saved at once. Otherwise an up that is killed now would leave an unknown process.
	return s.state.save()
}

// awaitReady waits until a replica is ready, including its broker session and its consumer.
func (s *Stack) awaitReady(ctx context.Context, name string) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.state.address(name)+
			"/readyz?full=1", nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		if !s.state.alive(name) {
			return fmt.Errorf("%s has ended before it was ready; the end of its log:\n%s", name,
				s.tail(name))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; the end of its log:\n%s", name, ctx.Err(), s.tail(name))
		}
	}
}

func (s *Stack) tail(name string) string {
	content, err := os.ReadFile(filepath.Join(s.dir(), "logs", name+".log"))
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-logTail):])
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
