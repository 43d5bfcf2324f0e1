package localrun

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

// logTail is how many bytes of a log are shown when a process does not become ready.
const logTail = 2000

// Processes are programs of services on this machine: their addresses, process ids and logs. All of
// it is saved in a folder, so that a later command finds and ends what an earlier one started. It
// is not safe for concurrent use, also not by two commands; see [Lock].
type Processes struct {
	// Detached processes outlive this program. Others are killed when it crashes.
	Detached bool

	folder  folder
	saved   saved
	starter starter
}

// saved is what is known of processes between two commands.
type saved struct {
	Ports     map[string]int     `json:"ports"`
	Processes map[string]process `json:"processes"`
}

// process identifies a process by its id and its start time, because the kernel reuses ids.
type process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // in clock ticks since the start of the machine
}

// OpenProcesses returns the processes of a folder, which is created if it does not exist.
func OpenProcesses(dir string) (*Processes, error) {
	p := &Processes{folder: folder(dir),
		saved: saved{Ports: map[string]int{}, Processes: map[string]process{}}}
	if err := os.MkdirAll(p.folder.path("logs"), 0o700); err != nil {
		return nil, fmt.Errorf("create the folder of the processes: %w", err)
	}
	path := p.folder.path("state.json")
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &p.saved)
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of the processes: %s is damaged: end the processes "+
			"listed in %s, then remove the file: %w", path, p.folder.path("pids"), err)
	}
	return p, nil
}

// Save saves addresses and process ids. Start and Forget do so themselves.
func (p *Processes) Save() error {
	content, err := json.MarshalIndent(p.saved, "", "  ")
	if err != nil {
		return fmt.Errorf("save the state of the processes: %w", err)
	}
	return p.folder.write("state.json", content, 0o600)
}

// PID returns the id of a process that was started and not forgotten, or 0. It may have ended.
func (p *Processes) PID(name string) int { return p.saved.Processes[name].PID }

// Alive reports whether a process runs.
func (p *Processes) Alive(name string) bool {
	have := p.saved.Processes[name]
	// A process that ended before its start time was read has an empty one and is not alive.
	return have.PID != 0 && have.Started != "" && startTime(have.PID) == have.Started
}

// Signal sends a signal to a process, if it runs.
func (p *Processes) Signal(name string, sig syscall.Signal) {
	if p.Alive(name) {
		_ = syscall.Kill(p.PID(name), sig) // an error means that it has ended
	}
}

// Stop asks a process to end, and kills it when it has not ended after a time.
func (p *Processes) Stop(ctx context.Context, name string, atMost time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	p.Signal(name, syscall.SIGTERM)
	p.AwaitEnd(ctx, name)
}

// AwaitEnd waits until a process has ended, and kills it when ctx is done.
func (p *Processes) AwaitEnd(ctx context.Context, name string) {
	ended := func() (bool, error) { return !p.Alive(name), nil }
	if Poll(ctx, pollEvery, ended) != nil {
		p.Signal(name, syscall.SIGKILL)
		_ = Poll(context.Background(), pollEvery, ended) // the kernel ends a killed process
	}
}

// Forget removes a process that has ended. It keeps its address.
func (p *Processes) Forget(name string) error {
	delete(p.saved.Processes, name)
	return p.Save()
}

// Start waits until the port of a process is free, starts the program and saves its id. The program
// gets env as its environment, together with PATH, HOME and the descriptor of its open port
// (QUADRILLE_LISTEN_FD). Its output goes to its log.
func (p *Processes) Start(ctx context.Context, name, program string, env []string) error {
	listener, err := p.awaitPort(ctx, name, portTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // the process has a copy, with which the port ends
	socket, err := listener.File()
	if err != nil {
		return fmt.Errorf("hand over the address of %s: %w", name, err)
	}
	defer func() { _ = socket.Close() }()
	log, err := os.OpenFile(p.log(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()
	command := exec.Command(program)
	command.Dir = string(p.folder)
	command.Stdout, command.Stderr = log, log
	command.ExtraFiles = []*os.File{socket} // they begin at descriptor 3
	command.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"QUADRILLE_LISTEN_FD=3"}, env...)
	// The process has its own group, so that Ctrl-C reaches only the parent, which stops the services
	// in order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !p.Detached {
		command.SysProcAttr.Pdeathsig = syscall.SIGKILL // in case the parent crashes
	}
	done := make(chan error)
	p.starter.do(func() { done <- command.Start() })
	if err := <-done; err != nil {
		return err
	}
	go reap(command)
	p.saved.Processes[name] = process{PID: command.Process.Pid,
		Started: startTime(command.Process.Pid)}
	// The state is saved at once. Otherwise a command that is killed now would leave an unknown
	// process.
	return p.Save()
}

// AwaitReady waits until a process answers GET path with 200. It returns an error with the end of
// the log when the process ends before, or when ctx is done.
func (p *Processes) AwaitReady(ctx context.Context, name, path string) error {
	err := Poll(ctx, pollEvery, func() (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet,
			"http://"+p.Address(name)+path, nil)
		if err != nil {
			return false, err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return true, nil
			}
		}
		if !p.Alive(name) {
			return false, errors.New("it has ended before it was ready")
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("%s is not ready: %w; the end of its log:\n%s", name, err, p.Tail(name))
	}
	return nil
}

// Tail returns the end of the log of a process.
func (p *Processes) Tail(name string) string {
	content, err := os.ReadFile(p.log(name))
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-logTail):])
}

func (p *Processes) log(name string) string { return p.folder.path("logs", name+".log") }

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

// starter starts processes from one thread that lives as long as this program, because Pdeathsig
// refers to the parent thread, not to the parent process.
type starter struct {
	once sync.Once
	jobs chan func()
}

func (s *starter) do(job func()) {
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

// Lock prevents other programs from starting or stopping the processes of a folder at the same
// time: two programs that read one state would start each process twice. It waits for another
// program for a limited time. The kernel releases the lock when this program ends.
func Lock(ctx context.Context, dir string, atMost time.Duration) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock the stack: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, atMost, fmt.Errorf(
		"another up or down of this stack has not ended after %s: wait for it, or end it", atMost))
	defer cancel()
	if unlock, err = folder(dir).lock(ctx, "stack.lock"); err != nil {
		return nil, fmt.Errorf("lock the stack (%s): %w", filepath.Join(dir, "stack.lock"), err)
	}
	return unlock, nil
}

// WriteFile replaces a file that only its owner may read. After a crash, also of the machine, it
// has either the old or the new content.
func WriteFile(path, content string) error {
	return folder(filepath.Dir(path)).write(filepath.Base(path), []byte(content), 0o600)
}
