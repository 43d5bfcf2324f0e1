package localrun

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// helperDir is the name of a variable. If it is set, this test binary starts or joins the servers
// of that directory, prints their addresses, and uses them until it is killed.
const helperDir = "QUADRILLE_LOCALRUN_HELPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		runHelper(dir)
	}
	if dir := os.Getenv(asRuntime); dir != "" {
		exitAsRuntime(dir)
	}
	os.Exit(m.Run())
}

func runHelper(dir string) {
	opts := Options{Dir: dir, PostgresOnly: os.Getenv(helperDir+"_SERVERS") == "postgres",
		Private: os.Getenv(helperDir+"_TEMPORARY") != ""}
	s, err := start(context.Background(), opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(s)
	select {} // the test kills this process
}

// startHelper starts another process that uses the servers of the directory.
func startHelper(t *testing.T, dir string, env ...string) *helper {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, helperDir+"="+dir)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	h := &helper{Process: cmd.Process, output: make(chan string, 1)}
	go func() {
		text, _ := bufio.NewReader(out).ReadString('\n')
		h.output <- text
	}()
	return h
}

// helper is a process that startHelper started, with a channel that receives its output.
type helper struct {
	*os.Process
	output chan string
}

// helperServers waits until the helper has its servers.
func helperServers(t *testing.T, h *helper) *Servers {
	t.Helper()
	select {
	case text := <-h.output:
		s := &Servers{}
		if err := json.Unmarshal([]byte(text), s); err != nil {
			t.Fatalf("the helper has printed %q: %v", text, err)
		}
		return s
	case <-time.After(waitTimeout):
		t.Fatalf("the helper has no servers after %v", waitTimeout)
	}
	return nil
}

// waitTimeout bounds how long a test waits for a condition. It is long, since the machine may be
// busy.
const waitTimeout = 2 * time.Minute

// eventually waits until a condition is true.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	err := pollFor(t.Context(), waitTimeout, func() (bool, error) { return condition(), nil })
	if err != nil {
		t.Fatalf("not within %v: %s: %v", waitTimeout, what, err)
	}
}

// processes returns all processes with a working directory in dir: the servers, their child
// processes, and the watcher.
func processes(t *testing.T, dir string) (found []string) {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, proc := range entries {
		cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
		if err == nil && (cwd+"/" == dir+"/" || strings.HasPrefix(cwd, dir+"/") ||
			strings.HasPrefix(cwd, dir+" ")) {
			comm, _ := os.ReadFile(filepath.Join(proc, "comm"))
			found = append(found, filepath.Base(proc)+" "+strings.TrimSpace(string(comm)))
		}
	}
	return found
}

// newDir returns a directory for servers, which end with the test.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(TempDir(), "quadrille-private-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := os.Stat(dir); err == nil {
			if err := Discard(dir); err != nil {
				t.Error(err)
			}
		}
		if left := processes(t, dir); len(left) > 0 {
			t.Errorf("processes after the test: %v", left)
		}
	})
	return dir
}

func execSQL(t *testing.T, url, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func channel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
