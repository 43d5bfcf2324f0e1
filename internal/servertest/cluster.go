package servertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/localrun"
)

// Node is a member of a cluster of RabbitMQ that a test has for itself.
type Node struct {
	localrun.Node
	process
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
	var names process
	names.launch(t, epmd)
	t.Cleanup(names.Kill)
	// A node that was cut off stops serving until it has joined again.
	settings += "cluster_partition_handling = pause_minority\n" +
		"cluster_formation.peer_discovery_backend = classic_config\n" +
		"log.connection.level = warning\n" // what a failing test shows is the end of the log
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
		t.Cleanup(nodes[i].Kill)
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

// AwaitMembers waits until the node answers and sees so many running nodes, itself included.
func (n *Node) AwaitMembers(t testing.TB, members int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	last := ""
	note := func(seen string) {
		if ctx.Err() == nil { // else it is about the end of the wait
			last = seen
		}
	}
	err := localrun.Poll(ctx, 100*time.Millisecond, func() (bool, error) {
		select {
		case <-n.ended:
			return false, fmt.Errorf("it has ended")
		default:
		}
		if err := n.Ping(ctx); err != nil {
			note(err.Error())
			return false, nil
		}
		var found []struct {
			Name       string
			Running    bool
			Partitions []string
		}
		if err := localrun.Manage(ctx, n.ManagementURL(), http.MethodGet, "/api/nodes", nil,
			&found); err != nil {
			note(err.Error())
			return false, nil
		}
		running := 0
		for _, node := range found {
			if node.Running {
				running++
			}
		}
		note(fmt.Sprintf("it sees %+v", found))
		return running == members, nil
	})
	if err != nil {
		log, _ := os.ReadFile(n.Dir + ".log")
		lines := strings.Split(string(log), "\n")
		t.Fatalf("%s is not in a cluster of %d: %v (%s); the end of its log:\n%s", n.Name, members, err,
			last, strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}
