package devstack

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxLog is the size above which a restarted server gets a new log file.
const maxLog = 16 << 20

//go:embed stack.sh
var stackScript []byte

// lockStart takes the lock that is held to start or stop servers.
func (k *stack) lockStart(ctx context.Context) (unlock func(), err error) {
	return k.lock(ctx, "start.lock")
}

// lock polls for a file lock, since a blocking flock could not be cancelled.
func (k *stack) lock(ctx context.Context, name string) (unlock func(), err error) {
	file, err := os.OpenFile(k.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the servers: %w", err)
	}
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			break
		}
		if err = pause(ctx, 10*time.Millisecond); err != nil {
			break
		}
	}
	_ = file.Close()
	return nil, fmt.Errorf("lock the servers: %w", err)
}

// lockAsUser takes the shared lock of a user, and reports whether there was no other user.
func (k *stack) lockAsUser() (lock int, onlyUser bool, err error) {
	path := k.path("users.lock")
	lock, err = syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return 0, false, fmt.Errorf("use the servers: open %s: %w", path, err)
	}
	onlyUser = syscall.Flock(lock, syscall.LOCK_EX|syscall.LOCK_NB) == nil
	for {
		err = syscall.Flock(lock, syscall.LOCK_SH)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil { // the watcher detects a user between two of its checks by this time
		err = os.Chtimes(path, time.Now(), time.Now())
	}
	if err != nil {
		_ = syscall.Close(lock)
		return 0, false, fmt.Errorf("use the servers: %w", err)
	}
	return lock, onlyUser, nil
}

// watch starts the watcher, unless one runs or the servers are detached.
func (k *stack) watch(opts Options, running bool) error {
	if err := k.writeLinger(opts, running); err != nil {
		return err
	}
	if err := k.writeScript(); err != nil {
		return err
	}
	if opts.temporary {
		if err := k.write("temporary", nil, 0o600); err != nil {
			return err
		}
	}
	if text, err := os.ReadFile(k.path("linger")); err != nil || string(text) == "never\n" {
		return err
	}
	file, err := os.OpenFile(k.path("watcher.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("start the watcher: %w", err)
	}
	defer file.Close() //nolint:errcheck // the watcher holds its own copy
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil // a watcher runs
	}
	cmd := exec.Command("/bin/sh", k.path("stack.sh"), "watch", k.dir)
	cmd.Dir = k.dir
	cmd.Env = environment(k.dir)
	cmd.ExtraFiles = []*os.File{file} // descriptor 3: the watcher holds the lock until it ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the watcher: %w", err)
	}
	go reap(cmd)
	return k.write("watcher.pid", []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600)
}

// writeLinger writes the linger time for the watcher. While the servers run, the longest time of
// all users counts.
func (k *stack) writeLinger(opts Options, running bool) error {
	want := lingerText(opts)
	if data, err := os.ReadFile(k.path("linger")); err == nil && running {
		have := strings.TrimSpace(string(data))
		haveSeconds, _ := strconv.Atoi(have)
		wantSeconds, _ := strconv.Atoi(want)
		if have == "never" || want != "never" && haveSeconds >= wantSeconds {
			return nil
		}
	}
	return k.write("linger", []byte(want+"\n"), 0o600)
}

// writeScript writes the script into the directory, where it outlives this program. It replaces the
// file, so that a running watcher keeps its own version.
func (k *stack) writeScript() error {
	if have, err := os.ReadFile(k.path("stack.sh")); err == nil && bytes.Equal(have, stackScript) {
		return nil
	}
	return k.write("stack.sh", stackScript, 0o700)
}

// script runs the script and waits until it ends.
func (k *stack) script(ctx context.Context, verb string, names ...string) error {
	if err := k.writeScript(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{k.path("stack.sh"), verb, k.dir},
		names...)...)
	cmd.Dir = k.dir
	cmd.Env = environment(k.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C must not interrupt it
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w %s", verb, names, err, output)
	}
	return nil
}

// endWatcher kills the watcher and the command that it is running. It returns after the lock of the
// watcher is released, since otherwise the next start would find a watcher and start none.
func (k *stack) endWatcher(ctx context.Context) error {
	data, err := os.ReadFile(k.path("watcher.pid"))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err == nil && pid > 1 && k.isProcess(pid, k.dir, "sh", "stack.sh") {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	free, err := k.lock(ctx, "watcher.lock")
	if err != nil {
		return fmt.Errorf("end the watcher: %w", err)
	}
	free()
	_ = os.Remove(k.path("watcher.pid")) // it is read only together with the lock of the watcher
	return nil
}

// spawn starts a server in a session of its own, so that a Ctrl-C in the terminal does not end it,
// and records its process.
func (k *stack) spawn(name string, cmd *exec.Cmd) error {
	path := k.path(name + ".log")
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
	return k.record(name, cmd.Process.Pid, false)
}

// record writes the process id of a server to a file, and whether the server has answered.
func (k *stack) record(name string, pid int, ready bool) error {
	line := strconv.Itoa(pid)
	if ready {
		line += " ready"
	}
	return k.write(name+".pid", []byte(line+"\n"), 0o600)
}

// pid returns the recorded process id of a server, or 0, and whether the server has answered.
func (k *stack) pid(name string) (pid int, ready bool) {
	data, err := os.ReadFile(k.path(name + ".pid"))
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

// alive reports whether the recorded process of a server is alive. It checks the working directory
// and the name of the process, as the script does, since another process may have the same id now.
func (k *stack) alive(name string) bool {
	pid, _ := k.pid(name)
	if pid == 0 {
		return false
	}
	if name == "postgres" {
		return k.isProcess(pid, k.path("postgres", "data"), "postgres")
	}
	return k.isProcess(pid, k.path("rabbitmq"), "rabbitmq-server", "erl", "erlexec", "beam.smp")
}

// ready reports whether a server is alive and has answered before.
func (k *stack) ready(name string) bool {
	_, ready := k.pid(name)
	return ready && k.alive(name)
}

func (k *stack) isProcess(pid int, home string, names ...string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	want, err := os.Stat(home)
	if err != nil {
		return false
	}
	have, err := os.Stat(filepath.Join(proc, "cwd"))
	if err != nil || !os.SameFile(want, have) {
		return false
	}
	comm, err := os.ReadFile(filepath.Join(proc, "comm"))
	return err == nil && slices.Contains(names, strings.TrimSpace(string(comm)))
}

// environment returns the whole environment of a server. A server does not inherit that of this
// process, which may have settings for other servers (PGDATA, RABBITMQ_…, ERL_…).
func environment(home string, more ...string) []string {
	return append([]string{
		"HOME=" + home,
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		"LC_ALL=C.UTF-8",
	}, more...)
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// reap waits for a process that this one has started, so that it does not stay as a zombie. Its
// goroutine may outlive the tests; package leaks ignores it by the name of this function.
func reap(cmd *exec.Cmd) { _ = cmd.Wait() }
