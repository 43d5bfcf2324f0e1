package localrun

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// TestLifecycleOfServers uses the same servers for all steps, since each start of a broker takes
// seconds.
func TestLifecycleOfServers(t *testing.T) {
	dir := newDir(t)
	opts := Options{Dir: dir, Log: t.Logf}
	if _, err := Running(dir); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("Running before the start: %v", err)
	}
	s, err := start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	joined, err := start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("joined in %v", time.Since(begin))
	if joined.started || joined.AMQPURL != s.AMQPURL || !maps.Equal(joined.PIDs, s.PIDs) {
		t.Errorf("joined %v, not %v", joined.PIDs, s.PIDs)
	}
	onlyLoopback(t, s.stack.settings.current())

	execSQL(t, s.PostgresURL, "CREATE TABLE kept (id int)")
	ch := channel(t, s.AMQPURL)
	if _, err := ch.QueueDeclare("kept", true, false, false, false,
		amqp.Table{"x-queue-type": "quorum"}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.KillPostgres(), s.KillRabbitMQ()); err != nil {
		t.Fatal(err)
	}
	if found := processes(t, dir); len(found) > 2 { // the watcher and its flock
		t.Errorf("processes after the kill: %v", found)
	}
	if s.stack.server("postgres").alive() || s.stack.server("rabbitmq").alive() {
		t.Error("a killed server is alive")
	}
	revived, err := start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if revived.AMQPURL != s.AMQPURL || revived.PostgresURL != s.PostgresURL ||
		revived.ManagementURL != s.ManagementURL {
		t.Error("the servers have other ports after they were started again")
	}
	execSQL(t, s.PostgresURL, "INSERT INTO kept VALUES (1)")
	if _, err := channel(t, s.AMQPURL).QueueDeclarePassive("kept", true, false, false, false,
		nil); err != nil {
		t.Errorf("the queue is gone: %v", err)
	}
	if err := errors.Join(s.RestartPostgres(t.Context()),
		s.RestartRabbitMQ(t.Context())); err != nil {
		t.Fatal(err)
	}
	execSQL(t, s.PostgresURL, "INSERT INTO kept VALUES (2)")
	if found, err := Running(dir); err != nil || found.AMQPURL != s.AMQPURL ||
		found.PIDs["postgres"] != s.PIDs["postgres"] {
		t.Errorf("Running: %v %v", found, err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if left := processes(t, dir); len(left) > 0 {
		t.Errorf("processes after Stop: %v", left)
	}
	if err := Stop(dir); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

// onlyLoopback checks in the kernel's table that the servers listen on the loopback address only.
func onlyLoopback(t *testing.T, s state) {
	t.Helper()
	seen := 0
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(data), "\n")[1:] {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != "0A" { // listening
				continue
			}
			address, port, _ := strings.Cut(fields[1], ":")
			for _, ours := range append(s.ports("postgres"), s.ports("rabbitmq")...) {
				if port != fmt.Sprintf("%04X", *ours) {
					continue
				}
				seen++
				if address != "0100007F" && address != "00000000000000000000000001000000" {
					t.Errorf("port %d listens at %s", *ours, address)
				}
			}
		}
	}
	if seen < 5 {
		t.Errorf("found %d listening ports, want 5", seen)
	}
}

// TestCrashEndsServers kills the only user of servers, which cannot clean up then. The servers end
// and their temporary directory is removed.
func TestCrashEndsServers(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	user := startHelper(t, dir, helperDir+"_TEMPORARY=yes")
	helperServers(t, user)
	if found := processes(t, dir); len(found) < 5 {
		t.Fatalf("only %v run", found)
	}
	if err := user.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all processes are gone", func() bool { return len(processes(t, dir)) == 0 })
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary directory still exists: %v", err)
	}
}

// TestServersOutliveOneOfTwoUsers starts the servers of one directory from two processes at the
// same time. One of the processes then crashes, and the servers continue.
func TestServersOutliveOneOfTwoUsers(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	first := startHelper(t, dir, helperDir+"_SERVERS=postgres")
	second := startHelper(t, dir, helperDir+"_SERVERS=postgres")
	a, b := helperServers(t, first), helperServers(t, second)
	if a.PostgresURL != b.PostgresURL || a.PIDs["postgres"] != b.PIDs["postgres"] {
		t.Fatalf("two processes have different servers: %v, %v", a.PIDs, b.PIDs)
	}
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	execSQL(t, b.PostgresURL, "SELECT pg_sleep(0.5)") // fails if the watcher ends the server
	if err := second.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all processes are gone", func() bool { return len(processes(t, dir)) == 0 })
	if _, err := os.Stat(filepath.Join(dir, "state.json")); err != nil {
		t.Errorf("a directory that is not temporary lost its state: %v", err)
	}
}

// TestLeftovers starts servers in a directory as a crash of the machine leaves it: with the ids of
// processes that no longer exist, or that are now other processes.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	opts := Options{Dir: dir, Log: t.Logf, PostgresOnly: true}
	for _, pid := range []int{1 << 22, os.Getpid()} {
		for _, name := range []string{"postgres", "rabbitmq", "epmd", "watcher"} {
			line := fmt.Sprintf("%d ready\n", pid)
			if err := os.WriteFile(filepath.Join(dir, name+".pid"), []byte(line), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := start(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		execSQL(t, s.PostgresURL, "SELECT 1")
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	// Without the state the passwords are unknown.
	if err := os.Remove(filepath.Join(dir, "state.json")); err != nil {
		t.Fatal(err)
	}
	s, err := start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	execSQL(t, s.PostgresURL, "SELECT 1")
}

// TestTakenPort starts servers after another program has taken their port.
func TestTakenPort(t *testing.T) {
	t.Parallel()
	s, err := start(t.Context(), Options{Dir: newDir(t), PostgresOnly: true, Private: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.KillPostgres(); err != nil {
		t.Fatal(err)
	}
	before := s.stack.settings.current().PostgresPort
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", before))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // a test
	if err := s.RestartPostgres(t.Context()); err == nil {
		t.Error("PostgreSQL restarted on a port that is taken")
	}
	if err := s.stack.server("rabbitmq").claimPorts(t.Context(), false); err != nil {
		t.Errorf("the ports of RabbitMQ are free: %v", err)
	}
	dir := string(s.stack.folder)
	kept := Options{Dir: dir, PostgresOnly: true, KeepPorts: true}
	_, err = start(t.Context(), kept)
	loaded := s.stack.settings.load()
	if port := s.stack.settings.current().PostgresPort; err == nil || loaded != nil ||
		!strings.Contains(err.Error(), fmt.Sprint(before)) || port != before {
		t.Errorf("port %d, want %d, with KeepPorts: %v", port, before, err)
	}
	moved, err := start(t.Context(), Options{Dir: dir, PostgresOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if moved.stack.settings.current().PostgresPort == before {
		t.Error("PostgreSQL did not get another port")
	}
	execSQL(t, moved.PostgresURL, "SELECT 1")
}

// TestDetached checks that detached servers outlive their users and end with Stop.
func TestDetached(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s, err := start(t.Context(), Options{Dir: dir, Detached: true, PostgresOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Release()
	joined, err := start(t.Context(), Options{Dir: dir, PostgresOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	joined.Release()
	if _, err := os.Stat(filepath.Join(dir, "watcher.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("detached servers have a watcher: %v", err)
	}
	execSQL(t, s.PostgresURL, "SELECT 1")
	if err := Stop(dir); err != nil {
		t.Fatal(err)
	}
	if left := processes(t, dir); len(left) > 0 {
		t.Errorf("processes after Stop: %v", left)
	}
}

// TestLinger checks that servers stay for the linger time after their last user, and that another
// user can join them during that time.
func TestLinger(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	const linger = 10 * time.Second // the second user must join within this time
	opts := Options{Dir: dir, Linger: linger, PostgresOnly: true}
	s, err := start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Release()
	eventually(t, "the watcher has noticed that there is no user", func() bool {
		_, err := os.Stat(filepath.Join(dir, "idle"))
		return err == nil
	})
	joined, err := start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if joined.started || joined.PIDs["postgres"] != s.PIDs["postgres"] {
		t.Error("the servers did not linger")
	}
	// The query takes longer than the rest of the first linger time.
	execSQL(t, s.PostgresURL, "SELECT pg_sleep($1)", linger.Seconds())
	joined.Release()
	eventually(t, "all processes are gone", func() bool { return len(processes(t, dir)) == 0 })
}

// TestRemovedDirectory checks that servers end after their last user even if their directory was
// removed.
func TestRemovedDirectory(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	user := startHelper(t, dir, helperDir+"_SERVERS=postgres")
	helperServers(t, user)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := user.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all processes are gone", func() bool { return len(processes(t, dir)) == 0 })
}
