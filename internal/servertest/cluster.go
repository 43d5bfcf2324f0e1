package servertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/localrun"
)

// Node is a member of a cluster of RabbitMQ that a test has for itself.
type Node struct {
	localrun.Node
	cmd   *exec.Cmd
	ended chan struct{}
}

// Cluster starts n nodes of RabbitMQ on this machine, which form a cluster, and waits until all of
// them are in it. Each has the settings in its rabbitmq.conf. They end with the test.
func Cluster(t testing.TB, n int, settings string) []*Node {
	t.Helper()
	dir, err := os.MkdirTemp(localrun.TempDir(), "quadrille-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ports := make([]int, 3*n+1)
	for i, address := range Addresses(t, len(ports)) {
		if _, err := fmt.Sscanf(address, "127.0.0.1:%d", &ports[i]); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(dir, "epmd")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	epmd, err := localrun.EPMDCommand(home, ports[3*n])
	if err != nil {
		t.Fatal(err)
	}
	var process Node
	process.launch(t, epmd)
	t.Cleanup(func() { process.end(syscall.SIGKILL) })
	// A node that was cut off stops serving until it has joined again.
	settings += "cluster_partition_handling = pause_minority\n" +
		"cluster_formation.peer_discovery_backend = classic_config\n"
	for i := range n {
		settings += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s\n", i+1, nodeName(i))
	}
	password, cookie := rand.Text(), rand.Text()
	nodes := make([]*Node, n)
	for i := range nodes {
		nodes[i] = &Node{Node: localrun.Node{Name: nodeName(i), Settings: settings,
			Dir:      filepath.Join(dir, fmt.Sprint("node", i)),
			AMQPPort: ports[3*i], ManagementPort: ports[3*i+1], DistributionPort: ports[3*i+2],
			EPMDPort: ports[3*n], Password: password, Cookie: cookie}}
		nodes[i].Launch(t)
		t.Cleanup(func() { nodes[i].end(syscall.SIGKILL) })
	}
	for _, node := range nodes {
		node.AwaitMembers(t, n)
	}
	return nodes
}

func nodeName(i int) string { return fmt.Sprintf("quadrille%d@localhost", i) }

// Launch starts the node, which was not started or has ended, and does not wait until it answers.
func (n *Node) Launch(t testing.TB) {
	t.Helper()
	cmd, err := n.Command()
	if err != nil {
		t.Fatal(err)
	}
	n.launch(t, cmd)
}

// launch starts a process that the kernel kills when this program ends. That signal belongs to the
// thread that starts the process, and so this thread waits for the process.
func (n *Node) launch(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.OpenFile(cmd.Dir+".log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the process holds its own copy
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	n.cmd, n.ended = cmd, make(chan struct{})
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
	}(n.ended)
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
}

// AwaitMembers waits until the node answers and sees so many running nodes, itself included.
func (n *Node) AwaitMembers(t testing.TB, members int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	last := error(nil)
	err := localrun.Poll(ctx, 100*time.Millisecond, func() (bool, error) {
		select {
		case <-n.ended:
			return false, fmt.Errorf("it has ended")
		default:
		}
		if last = n.Ping(ctx); last != nil {
			return false, nil
		}
		var found []struct{ Running bool }
		last = localrun.Manage(ctx, n.ManagementURL(), http.MethodGet, "/api/nodes", nil, &found)
		running := 0
		for _, node := range found {
			if node.Running {
				running++
			}
		}
		return last == nil && running == members, nil
	})
	if err != nil {
		log, _ := os.ReadFile(n.Dir + ".log")
		lines := strings.Split(string(log), "\n")
		t.Fatalf("%s is not in a cluster of %d: %v (%v); the end of its log:\n%s", n.Name, members, err,
			last, strings.Join(lines[max(0, len(lines)-30):], "\n"))
	}
}

// Signal sends a signal to the node.
func (n *Node) Signal(signal syscall.Signal) { _ = n.cmd.Process.Signal(signal) }

// Kill ends the node at once, and Stop lets it end in an orderly way. Both wait until it has ended.
func (n *Node) Kill() { n.end(syscall.SIGKILL) }

// Stop is described at Kill.
func (n *Node) Stop() { n.end(syscall.SIGTERM) }

func (n *Node) end(signal syscall.Signal) {
	n.Signal(signal)
	<-n.ended
}
