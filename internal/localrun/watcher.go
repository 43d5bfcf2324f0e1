package localrun

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed servers.sh
var serversScript []byte

// script is servers.sh in its folder. It ends servers, and as the watcher it does so when they have
// no user any more. It outlives this program.
type script struct {
	folder  folder
	runtime string // of containers, or "" if the servers are processes
}

// watch starts the watcher, unless one runs or the servers are detached.
func (s script) watch(opts Options, running bool) error {
	if err := s.writeLinger(opts, running); err != nil {
		return err
	}
	if err := s.write(); err != nil {
		return err
	}
	if opts.Private {
		if err := s.folder.write("temporary", nil, 0o600); err != nil {
			return err
		}
	}
	if text, err := os.ReadFile(s.folder.path("linger")); err != nil || string(text) == "never\n" {
		return err
	}
	file, err := os.OpenFile(s.folder.path("watcher.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("start the watcher: %w", err)
	}
	defer file.Close() //nolint:errcheck // the watcher holds its own copy
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil // a watcher runs
	}
	cmd := exec.Command("/bin/sh", s.folder.path("servers.sh"), "watch", string(s.folder))
	cmd.Dir = string(s.folder)
	cmd.Env = s.environment()
	cmd.ExtraFiles = []*os.File{file} // descriptor 3: the watcher holds the lock until it ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the watcher: %w", err)
	}
	go reap(cmd)
	return s.folder.write("watcher.pid", []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600)
}

// writeLinger writes the linger time for the watcher. While the servers run, the longest time of
// all users counts.
func (s script) writeLinger(opts Options, running bool) error {
	want := lingerText(opts)
	if data, err := os.ReadFile(s.folder.path("linger")); err == nil && running {
		have := strings.TrimSpace(string(data))
		haveSeconds, _ := strconv.Atoi(have)
		wantSeconds, _ := strconv.Atoi(want)
		if have == "never" || want != "never" && haveSeconds >= wantSeconds {
			return nil
		}
	}
	return s.folder.write("linger", []byte(want+"\n"), 0o600)
}

// lingerText returns the linger time in the format that the watcher reads.
func lingerText(opts Options) string {
	if opts.Detached {
		return "never"
	}
	return strconv.Itoa(int(opts.Linger / time.Second))
}

// write writes the script into the folder, where it outlives this program. It replaces the file, so
// that a running watcher keeps its own version.
func (s script) write() error {
	have, err := os.ReadFile(s.folder.path("servers.sh"))
	if err == nil && bytes.Equal(have, serversScript) {
		return nil
	}
	return s.folder.write("servers.sh", serversScript, 0o700)
}

// run runs the script and waits until it ends.
func (s script) run(ctx context.Context, verb string, names ...string) error {
	if err := s.write(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{s.folder.path("servers.sh"), verb,
		string(s.folder)}, names...)...)
	cmd.Dir = string(s.folder)
	cmd.Env = s.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C must not interrupt it
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w %s", verb, names, err, output)
	}
	return nil
}

// endWatcher kills the watcher and the command that it is running. It returns after the lock of the
// watcher is released, since otherwise the next start would find a watcher and start none.
func (s script) endWatcher(ctx context.Context) error {
	data, err := os.ReadFile(s.folder.path("watcher.pid"))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err == nil && pid > 1 && isProcess(pid, string(s.folder), "sh", "servers.sh") {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	free, err := s.folder.lock(ctx, "watcher.lock")
	if err != nil {
		return fmt.Errorf("end the watcher: lock the servers: %w", err)
	}
	free()
	_ = os.Remove(s.folder.path("watcher.pid")) // it is read only with the lock of the watcher
	return nil
}

// environment returns the environment of the script. A container runtime finds its daemon by its
// own variables.
func (s script) environment() []string {
	if s.runtime == "" {
		return environment(string(s.folder))
	}
	return append(os.Environ(), "LOCALRUN_RUNTIME="+s.runtime)
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
