package demo

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/quadrilletest"
)

// writeProgram writes a shell script that can be started at once. No other goroutine starts a
// process meanwhile: that process would have the script open for writing for a moment, and the
// kernel starts no file that anybody writes ("text file busy").
func writeProgram(t *testing.T, path, content string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+content+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// A process that ended before its start time was read is not alive.
func TestProcessThatEndedAtOnceIsNotAlive(t *testing.T) {
	command := exec.Command("true")
	if err := command.Run(); err != nil {
		t.Fatal(err)
	}
	pid := command.Process.Pid
	s := &state{Processes: map[string]process{"orders-1": {PID: pid, Started: startTime(pid)}}}
	if s.alive("orders-1") {
		t.Error("a process that has ended counts as alive")
	}
}

// A process keeps its address over a restart. While a dying process holds the port, the start
// waits. A port that another program holds is an error, and the process never moves to another
// port.
func TestAProcessKeepsItsPort(t *testing.T) {
	holder, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = holder.Close() })
	port := holder.Addr().(*net.TCPAddr).Port
	dir := t.TempDir()
	s := &Stack{Root: dir, Name: DefaultStack, Log: t.Logf}
	if err := os.MkdirAll(filepath.Join(s.dir(), "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if s.state, err = loadState(s.dir()); err != nil {
		t.Fatal(err)
	}
	s.state.Ports["orders-1"] = port
	_, err = s.state.awaitPort(t.Context(), "orders-1", 3*pollEvery)
	if err == nil || !strings.Contains(err.Error(), "orders-1 is still taken") ||
		s.state.Ports["orders-1"] != port {
		t.Errorf("a port that another program keeps: %v, port %d", err, s.state.Ports["orders-1"])
	}
	started := make(chan error)
	go func() { started <- s.start(t.Context(), "orders-1", "/bin/true", nil) }()
	select {
	case err := <-started:
		t.Fatalf("the process was started before its port was free: %v", err)
	case <-time.After(3 * pollEvery):
	}
	_ = holder.Close()
	if err := <-started; err != nil || s.state.address("orders-1") != local(port) {
		t.Errorf("the process restarted at %s: %v", s.state.address("orders-1"), err)
	}
	again, err := loadState(s.dir()) // the state is saved at once, also for other programs
	if err != nil || again.Processes["orders-1"].PID != s.state.Processes["orders-1"].PID ||
		again.Ports["orders-1"] != port {
		t.Errorf("the saved state is %+v: %v", again, err)
	}
}

// A process has its port from the moment at which the port is found free: no other program can take
// it before the process listens, and clients that connect meanwhile wait and are not refused.
func TestAPortIsHandedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "slow") // it never listens by itself, and has what it is handed
	writeProgram(t, program, "echo fd=$QUADRILLE_LISTEN_FD\nexec sleep 600")
	s := &Stack{Root: dir, Name: DefaultStack, Log: t.Logf}
	if err := os.MkdirAll(filepath.Join(s.dir(), "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.state, err = loadState(s.dir()); err != nil {
		t.Fatal(err)
	}
	if err := s.start(t.Context(), "orders-1", program, nil); err != nil {
		t.Fatal(err)
	}
	end := func() {
		s.state.signal("orders-1", syscall.SIGKILL)
		s.state.awaitEnd(t.Context(), "orders-1")
	}
	t.Cleanup(end)
	address := s.state.address("orders-1")
	if other, err := net.Listen("tcp", address); err == nil {
		_ = other.Close()
		t.Error("another program can take the port of a process that has been started")
	}
	early, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		t.Fatalf("a connection before the process listens: %v", err)
	}
	_ = early.Close()
	quadrilletest.WaitFor(t, "the process to say its descriptor", func() (bool, string) {
		log := s.tail("orders-1")
		return strings.Contains(log, "fd=3"), log
	})
	end()
	listener, err := s.state.awaitPort(t.Context(), "orders-1", portTimeout)
	if err != nil {
		t.Fatalf("the port did not end with its process: %v", err)
	}
	_ = listener.Close()
}

// The end of a stack gives up a port that another program took, and no other port. No port is
// assigned twice.
func TestForeignPortsAreGivenUp(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	port := taken.Addr().(*net.TCPAddr).Port
	self := process{PID: os.Getpid(), Started: startTime(os.Getpid())}
	s := &state{Ports: map[string]int{"orders-1": port, "orders-2": port},
		Processes: map[string]process{"orders-2": self}}
	kept := s.address("simulators")
	s.release(t.Context())
	if s.address("orders-1") == local(port) {
		t.Error("the port of an ended process was kept although another program has it")
	}
	if s.address("orders-2") != local(port) || s.address("simulators") != kept {
		t.Errorf("a process lost its port without need: %v", s.Ports)
	}
	left := lastPort - 400
	for p := firstPort; p < left; p++ {
		s.Ports[strconv.Itoa(p)] = p
	}
	if s.address("payments-1"); s.Ports["payments-1"] < left {
		t.Errorf("port %d was assigned twice", s.Ports["payments-1"])
	}
	for p := left; p < lastPort; p++ { // four in five of what is left belong to other programs
		if p%5 == 0 {
			continue
		}
		if l, err := net.Listen("tcp", local(p)); err == nil {
			t.Cleanup(func() { _ = l.Close() })
		}
	}
	for i := range 4 {
		name := "inventory-" + strconv.Itoa(i)
		if s.address(name); s.Ports[name]%5 != 0 {
			t.Errorf("%s is to have port %d, which another program has", name, s.Ports[name])
		}
	}
}

// Of two programs that start or stop one stack at the same time, the second waits, and returns an
// error after its time limit.
func TestOneUpAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stack.lock")
	unlock, err := lockFile(t.Context(), path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFile(t.Context(), path, 2*pollEvery); err == nil ||
		!strings.Contains(err.Error(), "another up or down") {
		t.Errorf("a second lock: error %v, want one that names the other up or down", err)
	}
	next := make(chan error)
	go func() {
		unlock, err := lockFile(t.Context(), path, time.Minute)
		if err == nil {
			unlock()
		}
		next <- err
	}()
	unlock()
	if err := <-next; err != nil {
		t.Error(err)
	}
}

// While a stack is started or stopped, nothing else starts, stops or empties it.
func TestNothingChangesALockedStack(t *testing.T) {
	s := &Stack{Root: t.TempDir(), Name: DefaultStack, Replicas: 1, Log: t.Logf}
	unlock, err := s.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	for name, change := range map[string]func(context.Context) error{"up": s.Up, "down": s.Down,
		"reset": s.Reset} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*pollEvery)
		err := change(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "lock the stack") ||
			!errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s beside another one: %v", name, err)
		}
	}
}

// A damaged state file is an error that names the file.
func TestDamagedStateIsNamed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	if err := os.WriteFile(path, []byte(`{"ports":{"orders-1":2`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadState(dir); err == nil || !strings.Contains(err.Error(), path+" is damaged") {
		t.Errorf("error %v, want one that names the damaged file", err)
	}
}
