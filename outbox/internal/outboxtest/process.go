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

// The environment with which a test binary is a process that relays.
const (
	RelayDatabase = "QUADRILLE_TEST_RELAY_DATABASE"
	RelayBroker   = "QUADRILLE_TEST_RELAY_BROKER"
)

// Process is this test binary once more, as a relay; its TestMain must look for RelayDatabase.
type Process struct {
	t      testing.TB
	cmd    *exec.Cmd
	output chan string
}

// StartProcess relays the outbox of a database to a broker until the end of the test.
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

// Signal sends a signal; after SIGSTOP it waits until every thread is stopped.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	for s == syscall.SIGSTOP && !p.stopped() { // until then it goes on
		runtime.Gosched()
	}
}

// stopped tells whether every thread is.
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

// AwaitOutput waits until the relay has logged something.
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
			p.t.Fatalf("the relay process does not say %q", what)
		}
	}
}
