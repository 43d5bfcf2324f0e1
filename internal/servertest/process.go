package servertest

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// process is a server that a test starts, and that the kernel kills when the test program ends.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// launch starts the process; its log is the name of its directory with the suffix .log. The signal
// of the kernel belongs to the thread that starts the process, and so this thread waits for it.
func (p *process) launch(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.OpenFile(cmd.Dir+".log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the process holds its own copy
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p.cmd, p.ended = cmd, make(chan struct{})
	started := make(chan error)
	go func(ended chan struct{}) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the tests end it by signals
		}
	}(p.ended)
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
}

// Signal sends a signal to the process.
func (p *process) Signal(signal syscall.Signal) { _ = p.cmd.Process.Signal(signal) }

// Kill ends the process at once, and Stop lets it end in an orderly way. Both wait until it has
// ended.
func (p *process) Kill() { p.end(syscall.SIGKILL) }

// Stop is described at Kill.
func (p *process) Stop() { p.end(syscall.SIGTERM) }

func (p *process) end(signal syscall.Signal) {
	p.Signal(signal)
	<-p.ended
}
