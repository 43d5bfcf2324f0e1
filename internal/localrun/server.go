package localrun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 90 * time.Second // RabbitMQ needs 7 s, and much more on a loaded machine
	portTimeout  = 20 * time.Second // until a process that is ending has released its ports
	moveTimeout  = 2 * time.Second  // the same, if the server may get other ports
	pollEvery    = 50 * time.Millisecond
	logLines     = 20
	goneChecks   = 5        // negative checks in a row after which a process is gone
	maxLog       = 16 << 20 // above this size a restarted server gets a new log file
)

var errDied = errors.New("it ended right after its start")

// server is the PostgreSQL or the RabbitMQ of a folder, running or not.
type server struct {
	name     string   // in the names of its files and for the script
	helpers  []string // other processes that the script ends together with it
	home     string   // the working directory of its process
	programs []string // the names that its process may have
	launch   func(ctx context.Context) error
	ping     func(ctx context.Context) error

	folder   folder
	settings *settings
	script   script
	logf     func(format string, args ...any)
}

// start starts a server that is dead, or that another process has started incompletely. If another
// program has taken one of its ports, the server gets other ports if mayMove is set.
func (s *server) start(ctx context.Context, mayMove bool) error {
	for attempt := 1; ; attempt++ {
		err := s.startOnce(ctx, mayMove)
		if err == nil {
			return nil
		}
		tail := s.logTail()
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		killed := s.end(clean, "kill")
		cancel()
		if ctx.Err() != nil || !mayMove || attempt == 3 || killed != nil ||
			len(s.settings.takenPorts(s.name)) == 0 {
			err = errors.Join(err, killed)
			return fmt.Errorf("start %s: %s%s%w", s.name, s.settings.redact(err.Error()), tail,
				hiddenCause{err})
		}
		s.logf("another program has taken a port of %s, which gets other ports", s.name)
		if err := s.settings.movePorts(s.name); err != nil {
			return fmt.Errorf("start %s: %w", s.name, err)
		}
	}
}

// hiddenCause keeps the cause of an error for errors.Is and errors.As without its text, which may
// contain secrets. The error has the redacted text instead.
type hiddenCause struct{ err error }

func (hiddenCause) Error() string   { return "" }
func (h hiddenCause) Unwrap() error { return h.err }

func (s *server) startOnce(ctx context.Context, mayMove bool) error {
	if !s.alive() {
		// Processes that are left after a crash may still use the data or the ports.
		if err := s.end(ctx, "kill"); err != nil {
			return err
		}
		if err := s.claimPorts(ctx, mayMove); err != nil {
			return err
		}
		if err := s.launch(ctx); err != nil {
			return err
		}
	}
	if err := s.awaitReady(ctx); err != nil {
		return err
	}
	pid, _ := s.pid()
	return s.record(pid, true)
}

// end runs the script for the server and its helpers: kill, stop or drop.
func (s *server) end(ctx context.Context, verb string) error {
	return s.script.run(ctx, verb, append([]string{s.name}, s.helpers...)...)
}

// claimPorts waits until the ports of a server are free. If mayMove is set, it picks other ports
// after a short time.
func (s *server) claimPorts(ctx context.Context, mayMove bool) error {
	timeout := portTimeout
	if mayMove {
		timeout = moveTimeout
	}
	err := pollFor(ctx, timeout, func() (bool, error) {
		return len(s.settings.takenPorts(s.name)) == 0, nil
	})
	switch {
	case !errors.Is(err, errNotWithin):
		return err
	case mayMove:
		s.logf("another program has taken a port of %s, which gets other ports", s.name)
		return s.settings.movePorts(s.name)
	}
	return fmt.Errorf("another program has taken its port %s: end that program, or stop the "+
		"servers so that they get another port at the next start", s.settings.takenPorts(s.name))
}

// awaitReady pings the server until it answers.
func (s *server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	gone := 0
	var last error
	err := Poll(ctx, pollEvery, func() (bool, error) {
		if last = s.ping(ctx); last == nil {
			return true, nil
		}
		// A process may get the name of its program a moment after Start has returned: at an exec, the
		// kernel closes files before it sets the name. One negative check is therefore not enough.
		if gone++; s.alive() {
			gone = 0
		}
		if gone == goneChecks {
			return false, errDied
		}
		return false, nil
	})
	if err != nil && !errors.Is(err, errDied) {
		return fmt.Errorf("it does not answer: %w", errors.Join(err, last))
	}
	return err
}

// logTail returns the last lines of the server's log, or "".
func (s *server) logTail() string {
	path := s.folder.path(s.name + ".log")
	lines := s.settings.redact(lastLines(path, logLines))
	if lines == "" {
		return ""
	}
	return fmt.Sprintf("\nthe end of %s:\n  %s\n", path, strings.ReplaceAll(lines, "\n", "\n  "))
}

// spawn starts a process of the server in a session of its own, so that a Ctrl-C in the terminal
// does not end it, and records it.
func (s *server) spawn(name string, cmd *exec.Cmd) error {
	path := s.folder.path(name + ".log")
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		_ = os.Rename(path, path+".old") // after an error the log continues to grow
	}
	logs, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer logs.Close() //nolint:errcheck // the server holds its own copy
	cmd.Stdout, cmd.Stderr = logs, logs
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return err
	}
	go reap(cmd)
	return s.folder.write(name+".pid", []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600)
}

// record writes the process id of the server to a file, and whether the server has answered.
func (s *server) record(pid int, ready bool) error {
	line := strconv.Itoa(pid)
	if ready {
		line += " ready"
	}
	return s.folder.write(s.name+".pid", []byte(line+"\n"), 0o600)
}

// pid returns the recorded process id of the server, or 0, and whether the server has answered.
func (s *server) pid() (pid int, ready bool) {
	data, err := os.ReadFile(s.folder.path(s.name + ".pid"))
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(data))
	if len(fields) == 0 {
		return 0, false
	}
	pid, _ = strconv.Atoi(fields[0])
	return pid, len(fields) > 1
}

// alive reports whether the recorded process of the server is alive. It checks the working
// directory and the name of the process, as the script does, since another process may have the
// same id now.
func (s *server) alive() bool {
	if s.script.runtime != "" {
		return s.script.container(s.name).runs()
	}
	pid, _ := s.pid()
	return pid != 0 && isProcess(pid, s.home, s.programs...)
}

// ready reports whether the server is alive and has answered before.
func (s *server) ready() bool {
	_, ready := s.pid()
	return ready && s.alive()
}

// isProcess reports whether a process runs in a directory and has one of these names.
func isProcess(pid int, home string, names ...string) bool {
	proc := fmt.Sprintf("/proc/%d", pid)
	want, err := os.Stat(home)
	if err != nil {
		return false
	}
	have, err := os.Stat(proc + "/cwd")
	if err != nil || !os.SameFile(want, have) {
		return false
	}
	comm, err := os.ReadFile(proc + "/comm")
	return err == nil && slices.Contains(names, strings.TrimSpace(string(comm)))
}

// reap waits for a process that this one has started, so that it does not stay as a zombie. Its
// goroutine may outlive the tests; package leaks ignores it by the name of this function.
func reap(cmd *exec.Cmd) { _ = cmd.Wait() }
