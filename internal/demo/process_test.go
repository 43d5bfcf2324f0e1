package demo

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A process that ended before anybody read when it was started is dead, and stays so.
func TestProcessThatEndedAtOnceIsNotAlive(t *testing.T) {
	command := exec.Command("true")
	if err := command.Run(); err != nil {
		t.Fatal(err)
	}
	pid := command.Process.Pid
	s := &state{Processes: map[string]process{"orders-1": {PID: pid, Started: started(pid)}}}
	if s.alive("orders-1") {
		t.Error("it is taken for alive")
	}
}

// The address of a process is the same after a restart: one that is still held by a dying process
// is waited for, and what another program keeps is an error, never another port.
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
	err = s.state.awaitPort(t.Context(), "orders-1", 3*pollEvery)
	if err == nil || !strings.Contains(err.Error(), "orders-1 is still taken") ||
		s.state.Ports["orders-1"] != port {
		t.Errorf("a port that another program keeps: %v, port %d", err, s.state.Ports["orders-1"])
	}
	started := make(chan error)
	go func() { started <- s.start(t.Context(), "orders-1", "/bin/true", nil) }()
	select {
	case err := <-started:
		t.Fatalf("it did not wait for its port: %v", err)
	case <-time.After(3 * pollEvery):
	}
	_ = holder.Close()
	if err := <-started; err != nil || s.state.address("orders-1") != local(port) {
		t.Errorf("it came back at %s: %v", s.state.address("orders-1"), err)
	}
	again, err := loadState(s.dir()) // what is started is known at once, also to others
	if err != nil || again.Processes["orders-1"].PID != s.state.Processes["orders-1"].PID ||
		again.Ports["orders-1"] != port {
		t.Errorf("%+v: %v", again, err)
	}
}

// The end of a stack gives up a port that another program took, and no other one; no port is given
// out twice.
func TestPortsOfOthersAreGivenUpAtTheEnd(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	port := taken.Addr().(*net.TCPAddr).Port
	self := process{PID: os.Getpid(), Started: started(os.Getpid())}
	s := &state{Ports: map[string]int{"orders-1": port, "orders-2": port},
		Processes: map[string]process{"orders-2": self}}
	kept := s.address("simulators")
	s.release(t.Context())
	if s.address("orders-1") == local(port) {
		t.Error("the port of a dead process was kept, though another program has it")
	}
	if s.address("orders-2") != local(port) || s.address("simulators") != kept {
		t.Errorf("a process moved without need: %v", s.Ports)
	}
	left := lastPort - 100
	for p := firstPort; p < left; p++ {
		s.Ports[strconv.Itoa(p)] = p
	}
	if s.address("payments-1"); s.Ports["payments-1"] < left {
		t.Errorf("port %d was given out twice", s.Ports["payments-1"])
	}
}

// Of two that start or stop one stack at the same time, the second waits, and says so at the end.
func TestOneUpAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stack.lock")
	unlock, err := lockFile(t.Context(), path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFile(t.Context(), path, 2*pollEvery); err == nil ||
		!strings.Contains(err.Error(), "another up or down") {
		t.Errorf("two at once: %v", err)
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

// A state that is damaged is an error that names the file.
func TestDamagedStateIsNamed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	if err := os.WriteFile(path, []byte(`{"ports":{"orders-1":2`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadState(dir); err == nil || !strings.Contains(err.Error(), path+" is damaged") {
		t.Errorf("error %v", err)
	}
}
