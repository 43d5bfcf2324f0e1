package outboxtest

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The environment variables that make a test binary run a relay instead of its tests.
const (
	RelayDatabase = "QUADRILLE_TEST_RELAY_DATABASE"
	RelayBroker   = "QUADRILLE_TEST_RELAY_BROKER"
)

// Process is a second process of the test binary that runs a relay. The TestMain of the package
// must look for RelayDatabase.
type Process struct {
	t      testing.TB
	cmd    *exec.Cmd
	output chan string
}

// StartProcess starts a relay from a database to a broker, which is killed at the end of the test.
func StartProcess(t testing.TB, database, broker string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: exec.Command(os.Args[0]), output: make(chan string, 1000)}
	p.cmd.Env = append(os.Environ(), RelayDatabase+"="+database, RelayBroker+"="+broker)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			select {
			case p.output <- lines.Text():
			default:
			}
		}
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-done; _ = p.cmd.Wait() })
	return p
}

// Signal sends a signal. After SIGSTOP it waits until every thread is stopped: until then the relay
// may still work.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	for s == syscall.SIGSTOP && !p.stopped() {
		runtime.Gosched()
	}
}

// stopped reports whether every thread of the process is stopped.
func (p *Process) stopped() bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	if err != nil || len(stats) == 0 {
		p.t.Fatalf("the relay process has ended: %v", err)
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err == nil && !bytes.Contains(stat, []byte(") T ")) {
			return false
		}
	}
	return true
}

// AwaitOutput waits until the relay has logged a line that contains what.
func (p *Process) AwaitOutput(what string) {
	p.t.Helper()
	deadline := time.NewTimer(Timeout)
	defer deadline.Stop()
	for {
		select {
		case line := <-p.output:
			if strings.Contains(line, what) {
				return
			}
		case <-deadline.C:
			p.t.Fatalf("the relay process did not log %q within %s", what, Timeout)
		}
	}
}
