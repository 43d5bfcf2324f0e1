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

// maxLog is the size from which on a restarted server gets a new log.
const maxLog = 16 << 20

//go:embed stack.sh
var stackScript []byte

// lockStart takes the lock under which servers are started and stopped.
func (k *stack) lockStart(ctx context.Context) (unlock func(), err error) {
	return k.lock(ctx, "start.lock")
}

// lock asks again and again, since a blocked flock could not be given up.
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

// use takes a user's lock and tells whether there was no other user.
func (k *stack) use() (lock int, sole bool, err error) {
	path := k.path("users.lock")
	lock, err = syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return 0, false, fmt.Errorf("use the servers: open %s: %w", path, err)
	}
	sole = syscall.Flock(lock, syscall.LOCK_EX|syscall.LOCK_NB) == nil
	for {
		err = syscall.Flock(lock, syscall.LOCK_SH)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil { // tells the watcher of users who come and go between its looks
		err = os.Chtimes(path, time.Now(), time.Now())
	}
	if err != nil {
		_ = syscall.Close(lock)
		return 0, false, fmt.Errorf("use the servers: %w", err)
	}
	return lock, sole, nil
}

// watch starts the watcher, unless there is one or the servers are to stay.
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
		return nil // there is one
	}
	cmd := exec.Command("/bin/sh", k.path("stack.sh"), "watch", k.dir)
	cmd.Dir = k.dir
	cmd.Env = environment(k.dir)
	cmd.ExtraFiles = []*os.File{file} // descriptor 3: the lock lives as long as the watcher
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the watcher: %w", err)
	}
	go reap(cmd)
	return k.write("watcher.pid", []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600)
}

// writeLinger tells the watcher how long to wait. Among users who disagree the
// longest time wins, for as long as the servers run.
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

// writeScript puts the script where it outlives this program. A running
// watcher keeps its own version, for the file is replaced as a whole.
func (k *stack) writeScript() error {
	if have, err := os.ReadFile(k.path("stack.sh")); err == nil && bytes.Equal(have, stackScript) {
		return nil
	}
	return k.write("stack.sh", stackScript, 0o700)
}

// script runs the script to its end.
func (k *stack) script(ctx context.Context, verb string, names ...string) error {
	if err := k.writeScript(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{k.path("stack.sh"), verb, k.dir},
		names...)...)
	cmd.Dir = k.dir
	cmd.Env = environment(k.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C must not interrupt it
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w %s", verb, names, err, output)
	}
	return nil
}

// endWatcher ends the watcher, since it has nothing left to wait for, with the
// command it may be running. It returns when the watcher has let go of its
// lock, for otherwise the next start would take it for one that still watches.
func (k *stack) endWatcher(ctx context.Context) error {
	data, err := os.ReadFile(k.path("watcher.pid"))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err == nil && pid > 1 && k.lives(pid, k.dir, "sh", "stack.sh") {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	free, err := k.lock(ctx, "watcher.lock")
	if err != nil {
		return fmt.Errorf("end the watcher: %w", err)
	}
	free()
	_ = os.Remove(k.path("watcher.pid")) // it is only read together with the watcher's lock
	return nil
}

// spawn starts a server in a session of its own, so that a Ctrl-C in the
// terminal does not reach it, and records its process.
func (k *stack) spawn(name string, cmd *exec.Cmd) error {
	path := k.path(name + ".log")
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		_ = os.Rename(path, path+".old") // else it just grows
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

// record remembers a server's process, and whether it has answered once.
func (k *stack) record(name string, pid int, ready bool) error {
	line := strconv.Itoa(pid)
	if ready {
		line += " ready"
	}
	return k.write(name+".pid", []byte(line+"\n"), 0o600)
}

// pid returns the recorded process of a server, 0 for none.
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

// alive says whether the recorded process of a server lives. A number that
// went to another process meanwhile is told by its working directory and name,
// as the script does.
func (k *stack) alive(name string) bool {
	pid, _ := k.pid(name)
	if pid == 0 {
		return false
	}
	if name == "postgres" {
		return k.lives(pid, k.path("postgres", "data"), "postgres")
	}
	return k.lives(pid, k.path("rabbitmq"), "rabbitmq-server", "erl", "erlexec", "beam.smp")
}

// ready says whether a server lives and has answered once.
func (k *stack) ready(name string) bool {
	_, ready := k.pid(name)
	return ready && k.alive(name)
}

func (k *stack) lives(pid int, home string, names ...string) bool {
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

// environment is all that a server gets to see of ours: settings meant for
// other servers (PGDATA, RABBITMQ_…, ERL_…) must not reach it.
func environment(home string, more ...string) []string {
	return append([]string{
		"HOME=" + home,
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		"LC_ALL=C.UTF-8",
	}, more...)
}

// pause waits, unless there is no sense in it any more.
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

// reap waits for a process that we have started: it would stay as a zombie for as long as we live.
// It ends with that process, which may outlive a test that looks for goroutines: such a test knows
// it by this name.
func reap(cmd *exec.Cmd) { _ = cmd.Wait() }
