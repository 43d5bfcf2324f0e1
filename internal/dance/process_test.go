package dance

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
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

// What another program took while a process was down is left to it, and no port is given out twice.
func TestPortsThatAreTakenAreNotUsed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	port := taken.Addr().(*net.TCPAddr).Port
	self := process{PID: os.Getpid(), Started: started(os.Getpid())}
	s := &state{Ports: map[string]int{"orders-1": port, "orders-2": port}, Processes: map[string]process{"orders-2": self}}
	kept := s.address("simulators")
	s.move()
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
