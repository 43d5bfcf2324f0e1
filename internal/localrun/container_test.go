package localrun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// asRuntime is the name of a variable. If it is set, this test binary is a container runtime: it
// has the commands of docker, and a "container" is a folder in which installed programs run.
const asRuntime = "QUADRILLE_LOCALRUN_RUNTIME"

// contained is what the runtime stores about a container.
type contained struct {
	Ports   map[string]int // in the container, to outside
	Env     map[string]string
	Running bool
}

// runRuntime executes a command line of the runtime. The containers are folders in dir.
func runRuntime(dir string, args []string) error {
	home := filepath.Join(dir, args[len(args)-1])
	var c contained
	if data, err := os.ReadFile(home + ".json"); err == nil {
		if err := json.Unmarshal(data, &c); err != nil {
			return err
		}
	}
	exists := c.Env != nil
	switch args[0] {
	case "info":
		return nil
	case "run":
		return createContainer(dir, args)
	case "rm":
		return errors.Join(Discard(home), os.Remove(home+".json"))
	case "inspect":
		switch {
		case !exists:
			return errors.New("no such object")
		case strings.Contains(args[2], "Running"):
			fmt.Println(c.Running)
		default:
			for in, out := range c.Ports {
				fmt.Printf("%s/tcp=%d ", in, out)
			}
		}
		return nil
	case "start":
		return c.start(home)
	case "stop", "kill":
		c.Running = false
		k := newStack(home, nil)
		return errors.Join(k.script.run(context.Background(), args[0], "rabbitmq", "epmd", "postgres"),
			c.save(home))
	}
	return fmt.Errorf("unknown command %s", args)
}

func createContainer(dir string, args []string) error {
	c := contained{Ports: map[string]int{}, Env: map[string]string{}}
	var name string
	for i, arg := range args {
		switch arg {
		case "--name":
			name = args[i+1]
		case "--publish":
			var in, out int
			if _, err := fmt.Sscanf(args[i+1], "127.0.0.1:%d:%d", &out, &in); err != nil {
				return err
			}
			c.Ports[fmt.Sprint(in)] = out
		case "--env-file":
			data, err := os.ReadFile(args[i+1])
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(data)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				c.Env[key] = value
			}
		}
	}
	return c.start(filepath.Join(dir, name))
}

// start starts the server of the container as an installed program.
func (c *contained) start(home string) error {
	k := newStack(home, nil)
	if err := k.folder.prepare(); err != nil {
		return err
	}
	fresh, err := k.ensureState(context.Background())
	if err != nil {
		return err
	}
	if fresh {
		s := &k.settings.state
		s.PostgresPort, s.PostgresPassword = c.Ports["5432"], c.Env["POSTGRES_PASSWORD"]
		if port := c.Ports["5672"]; port != 0 {
			s.AMQPPort, s.ManagementPort = port, c.Ports["15672"]
			s.AMQPPassword = c.Env["RABBITMQ_DEFAULT_PASS"]
		}
		if err := k.settings.save(); err != nil {
			return err
		}
	}
	name := "postgres"
	if c.Ports["5432"] == 0 {
		name = "rabbitmq"
	}
	c.Running = true
	return errors.Join(k.server(name).start(context.Background(), false), c.save(home))
}

func (c *contained) save(home string) error {
	data, err := json.Marshal(c)
	return errors.Join(err, os.WriteFile(home+".json", data, 0o600))
}

// Where programs are missing, the servers run as containers, and do everything that processes do.
// The runtime is a double: it shows the way of the commands, not what a real runtime makes of them.
func TestServersAsContainers(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	containers := newDir(t)
	if err := os.Chmod(containers, 0o711); err != nil { // PostgreSQL has a user of its own
		t.Fatal(err)
	}
	bin := t.TempDir()
	double := fmt.Sprintf("#!/bin/sh\n%s=%s exec %s \"$@\"\n", asRuntime, containers, self)
	if err := os.WriteFile(filepath.Join(bin, "docker"), []byte(double), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	dir := newDir(t)
	k := newStack(dir, t.Logf)
	if _, err := k.ensureState(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.settings.useRuntime(containerRuntime(t.Context())); err != nil {
		t.Fatal(err)
	}
	s, err := start(t.Context(), Options{Dir: dir, Private: true, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.PIDs) != 0 || s.stack.script.runtime != "docker" {
		t.Errorf("the servers are processes: %v", s.PIDs)
	}
	execSQL(t, s.PostgresURL, "CREATE TABLE kept (id int)")
	channel(t, s.AMQPURL)
	if err := s.KillPostgres(); err != nil || s.stack.server("postgres").alive() {
		t.Errorf("PostgreSQL was not killed: %v", err)
	}
	if err := s.RestartPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	execSQL(t, s.PostgresURL, "INSERT INTO kept VALUES (1)")
	s.Release() // the last user, after which the watcher ends the servers and removes everything
	eventually(t, "the containers are gone", func() bool {
		left, err := filepath.Glob(filepath.Join(containers, filepath.Base(dir)+"-*"))
		return err == nil && len(left) == 0
	})
	eventually(t, "the folder is gone", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist)
	})
}

// Without programs and without a runtime, the error says what to install or to set.
func TestMissingServersSayWhatToDo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	k := newStack(t.TempDir(), t.Logf)
	dead := k.servers(false)
	err := k.chooseRuntime(t.Context(), dead, true)
	if !errors.Is(err, ErrNotInstalled) {
		t.Fatalf("error %v", err)
	}
	for _, part := range []string{"Erlang (epmd)", "rabbitmq-server and postgresql",
		"QUADRILLE_POSTGRES_URL", "docker or podman"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in the error: %v", part, err)
		}
	}
	if err := k.chooseRuntime(t.Context(), dead, false); !errors.Is(err, ErrNotInstalled) ||
		strings.Contains(err.Error(), "docker") {
		t.Errorf("where containers are not allowed: %v", err)
	}
}

// exitAsRuntime ends this process after it has been the runtime.
func exitAsRuntime(dir string) {
	_ = syscall.Umask(0o022)
	if err := runRuntime(dir, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
