package localrun

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/servertest/shell"
)

func newProcesses(t *testing.T) *Processes {
	t.Helper()
	p, err := OpenProcesses(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A process that ended before its start time was read is not alive.
func TestProcessThatEndedAtOnceIsNotAlive(t *testing.T) {
	command := exec.Command("true")
	if err := command.Run(); err != nil {
		t.Fatal(err)
	}
	pid := command.Process.Pid
	p := newProcesses(t)
	p.saved.Processes["orders-1"] = process{PID: pid, Started: startTime(pid)}
	if p.Alive("orders-1") {
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
	p := newProcesses(t)
	p.saved.Ports["orders-1"] = port
	_, err = p.awaitPort(t.Context(), "orders-1", 3*pollEvery)
	if err == nil || !strings.Contains(err.Error(), "orders-1 is still taken") ||
		p.saved.Ports["orders-1"] != port {
		t.Errorf("a port that another program keeps: %v, port %d", err, p.saved.Ports["orders-1"])
	}
	started := make(chan error)
	go func() { started <- p.Start(t.Context(), "orders-1", "/bin/true", nil) }()
	select {
	case err := <-started:
		t.Fatalf("the process was started before its port was free: %v", err)
	case <-time.After(3 * pollEvery):
	}
	_ = holder.Close()
	if err := <-started; err != nil || p.Address("orders-1") != local(port) {
		t.Errorf("the process restarted at %s: %v", p.Address("orders-1"), err)
	}
	// The state is saved at once, also for other programs.
	again, err := OpenProcesses(string(p.folder))
	if err != nil || again.saved.Processes["orders-1"].PID != p.saved.Processes["orders-1"].PID ||
		again.saved.Ports["orders-1"] != port {
		t.Errorf("the saved state is %+v: %v", again.saved, err)
	}
}

// A process has its port from the moment at which the port is found free: no other program can take
// it before the process listens, and clients that connect meanwhile wait and are not refused.
func TestAPortIsHandedOver(t *testing.T) {
	t.Parallel()
	p := newProcesses(t)
	program := p.folder.path("slow") // it never listens by itself, and has what it is handed
	shell.Script(t, program, "echo fd=$QUADRILLE_LISTEN_FD\nexec sleep 600")
	if err := p.Start(t.Context(), "orders-1", program, nil); err != nil {
		t.Fatal(err)
	}
	end := func() {
		p.Signal("orders-1", syscall.SIGKILL)
		p.AwaitEnd(t.Context(), "orders-1")
	}
	t.Cleanup(end)
	address := p.Address("orders-1")
	if other, err := net.Listen("tcp", address); err == nil {
		_ = other.Close()
		t.Error("another program can take the port of a process that has been started")
	}
	early, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		t.Fatalf("a connection before the process listens: %v", err)
	}
	_ = early.Close()
	eventually(t, "the process says its descriptor", func() bool {
		return strings.Contains(p.Tail("orders-1"), "fd=3")
	})
	end()
	listener, err := p.awaitPort(t.Context(), "orders-1", portTimeout)
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
	p := newProcesses(t)
	p.saved = saved{Ports: map[string]int{"orders-1": port, "orders-2": port},
		Processes: map[string]process{"orders-2": self}}
	kept := p.Address("simulators")
	p.Release(t.Context())
	if p.Address("orders-1") == local(port) {
		t.Error("the port of an ended process was kept although another program has it")
	}
	if p.Address("orders-2") != local(port) || p.Address("simulators") != kept {
		t.Errorf("a process lost its port without need: %v", p.saved.Ports)
	}
	first, end := portRange()
	left := end - 400
	for port := first; port < left; port++ {
		p.saved.Ports[strconv.Itoa(port)] = port
	}
	if p.Address("payments-1"); p.saved.Ports["payments-1"] < left {
		t.Errorf("port %d was assigned twice", p.saved.Ports["payments-1"])
	}
	for port := left; port < end; port++ { // four in five of what is left belong to other programs
		if port%5 == 0 {
			continue
		}
		if l, err := net.Listen("tcp", local(port)); err == nil {
			t.Cleanup(func() { _ = l.Close() })
		}
	}
	for i := range 4 {
		name := "inventory-" + strconv.Itoa(i)
		if p.Address(name); p.saved.Ports[name]%5 != 0 {
			t.Errorf("%s is to have port %d, which another program has", name, p.saved.Ports[name])
		}
	}
}

// Of two programs that start or stop one stack at the same time, the second waits, and returns an
// error after its time limit.
func TestOneUpAtATime(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock(t.Context(), dir, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(t.Context(), dir, 2*pollEvery); err == nil ||
		!strings.Contains(err.Error(), "another up or down") {
		t.Errorf("a second lock: error %v, want one that names the other up or down", err)
	}
	next := make(chan error)
	go func() {
		unlock, err := Lock(t.Context(), dir, time.Minute)
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

// A damaged state file is an error that names the file.
func TestDamagedStateIsNamed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	if err := os.WriteFile(path, []byte(`{"ports":{"orders-1":2`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenProcesses(dir); err == nil || !strings.Contains(err.Error(), path+" is damaged") {
		t.Errorf("error %v, want one that names the damaged file", err)
	}
}
