package compose_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

// patience is the time limit of each wait.
const patience = 2 * time.Minute

// machine runs the commands of the containers as processes on this machine: with the environment,
// the secrets and the health checks of compose.yaml, on a private RabbitMQ and PostgreSQL.
type machine struct {
	*testing.T
	p       project
	dir     string
	bin     string
	replace *strings.Replacer
}

// start creates the secrets, builds the programs and starts the servers.
func start(t *testing.T) *machine {
	t.Helper()
	m := &machine{T: t, dir: t.TempDir(), bin: t.TempDir()}
	secrets(t, filepath.Join(m.dir, "secrets"))
	var err error
	if m.p, err = load(m.dir, read(t, "compose.yaml")); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", m.bin+"/", "./cmd/...")
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, output)
	}
	servers := servertest.Private(t)
	broker, database := parse(t, servers.AMQPURL), parse(t, servers.PostgresURL)
	// Only addresses differ between the network of the containers and this machine.
	addresses := []string{
		"rabbitmq:5672", broker.Host, "postgres:5432", database.Host,
		"--host=postgres", "--host=127.0.0.1", "--username=postgres", "--username=" +
			database.User.Username() + " --port=" + database.Port() + " --dbname=postgres",
	}
	programs := m.p.programs()
	free := servertest.Addresses(t, len(programs))
	for i, name := range programs {
		address := free[i]
		addresses = append(addresses, "http://"+name+":8080", "http://"+address)
		*m.p.Services[name].Environment["QUADRILLE_"+strings.ToUpper(name)+"_LISTEN"] = "0.0.0.0:" +
			strings.TrimPrefix(address, "127.0.0.1:")
	}
	m.replace = strings.NewReplacer(addresses...)
	password, _ := database.User.Password()
	m.write(filepath.Join(m.dir, "secrets", "passwords", "postgres"), password+"\n")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	loaded := json.RawMessage(content(t, filepath.Join(m.dir, "secrets", "definitions.json")))
	if err := localrun.Manage(ctx, servers.ManagementURL, http.MethodPost, "/api/definitions", loaded,
		nil); err != nil {
		t.Fatalf("load the definitions: %v", err)
	}
	return m
}

func (m *machine) write(path, text string) {
	m.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.Fatal(err)
	}
}

// command returns the command of a container of the service: its entrypoint followed by words, with
// only the secrets that it mounts and only its own environment.
func (m *machine) command(ctx context.Context, name string, words ...string) *exec.Cmd {
	m.Helper()
	s := m.p.Services[name]
	mounts, err := os.MkdirTemp(m.dir, name)
	if err != nil {
		m.Fatal(err)
	}
	for _, secret := range s.Secrets {
		text := m.replace.Replace(content(m.T, m.p.Secrets[secret.Source].File))
		m.write(filepath.Join(mounts, filepath.Base(targetOf(secret))), text+"\n")
	}
	local := func(text string) string {
		return strings.ReplaceAll(strings.ReplaceAll(m.replace.Replace(text), "$$", "$"), "/run/secrets",
			mounts)
	}
	var args []string
	for _, word := range slices.Concat(s.Entrypoint, words) {
		args = append(args, local(word))
	}
	program := args[0]
	if s.Build != nil {
		program = filepath.Join(m.bin, program)
	}
	c := exec.CommandContext(ctx, program, args[1:]...)
	c.Dir = m.dir
	c.Env = []string{"PATH=/usr/bin:/bin"}
	for variable, value := range s.Environment {
		c.Env = append(c.Env, variable+"="+local(*value))
	}
	return c
}

// run runs a command to its end and returns its output.
func (m *machine) run(name string, words ...string) string {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), patience)
	defer cancel()
	output, err := m.command(ctx, name, words...).CombinedOutput()
	if err != nil {
		m.Fatalf("%s %q: %v\n%s", name, words, err, output)
	}
	return string(output)
}

// service starts a service and returns a function that stops it as Compose does.
func (m *machine) service(name string) (stop func()) {
	m.Helper()
	ctx, kill := context.WithCancel(context.Background())
	c := m.command(ctx, name)
	var log bytes.Buffer
	c.Stderr = &log
	if err := c.Start(); err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() {
		kill()
		_ = c.Wait()
		if m.Failed() {
			m.Logf("%s:\n%s", name, log.String())
		}
	})
	return func() {
		m.Helper()
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			m.Fatal(err)
		}
		late := time.AfterFunc(time.Duration(*m.p.Services[name].StopGracePeriod), kill)
		defer late.Stop()
		if err := c.Wait(); err != nil {
			m.Errorf("%s did not stop gracefully: %v", name, err)
		}
	}
}

// healthy runs the health check of a service until it succeeds.
func (m *machine) healthy(name string) {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), patience)
	defer cancel()
	check := m.p.Services[name].HealthCheck.Test[1:]
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		output, err := m.command(ctx, name, check[1:]...).CombinedOutput()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			m.Fatalf("%s is not healthy: %s", name, output)
		}
	}
}

// TestRunsWithoutContainers runs the services of compose.yaml in the order in which Compose does,
// and places an order.
func TestRunsWithoutContainers(t *testing.T) {
	m := start(t)
	for range 2 { // both run again at each start
		m.run("databases", m.p.Services["databases"].Command...)
		if output := m.run("operator",
			m.p.Services["operator"].Command...); !strings.Contains(output, "applied") {
			t.Errorf("topology apply printed %q, want applied", output)
		}
	}
	var stops []func()
	for _, name := range m.p.programs() {
		stops = append(stops, m.service(name))
	}
	for _, name := range m.p.programs() {
		m.healthy(name)
	}
	// Nothing is in stock, so the order is cancelled after every service has used its rights.
	var order struct{ ID, State string }
	if err := json.Unmarshal([]byte(m.run("operator", "-o", "json", "order", "place",
		"--sample", "--quiet")),
		&order); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ; order.State != "cancelled" && order.State != "confirmed"; <-tick.C {
		if time.Now().After(until) {
			t.Fatalf("the order is still %s", order.State)
		}
		if err := json.Unmarshal([]byte(m.run("operator", "-o", "json", "order", "show", order.ID)),
			&order); err != nil {
			t.Fatal(err)
		}
	}
	var parked admin.ParkedList
	if err := json.Unmarshal([]byte(m.run("operator", "-o", "json", "parked", "list")),
		&parked); err != nil || len(parked.Parked)+len(parked.Missing) > 0 {
		t.Errorf("parked: %+v, %v", parked, err)
	}
	m.checkAccess()
	for _, stop := range stops {
		stop()
	}
}

// checkAccess checks the access from outside: without a token, and to the database of another
// service.
func (m *machine) checkAccess() {
	m.Helper()
	orders := m.p.Services["orders"]
	_, port, err := net.SplitHostPort(*orders.Environment["QUADRILLE_ORDERS_LISTEN"])
	if err != nil {
		m.Fatal(err)
	}
	request, err := http.NewRequestWithContext(m.Context(), http.MethodGet, "http://127.0.0.1:"+port+
		"/orders", nil)
	if err != nil {
		m.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		m.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		m.Errorf("without a token the answer is %s, want 401", response.Status)
	}
	own := m.replace.Replace(content(m.T, m.p.Secrets["orders_database_url"].File))
	for database, want := range map[string]bool{"orders": true, "payments": false, "postgres": false,
		"template1": false} {
		url := strings.Replace(own, "/orders?", "/"+database+"?", 1)
		output, err := exec.Command("psql", "--no-psqlrc", "--dbname="+url,
			"--command=SELECT 1").CombinedOutput()
		if (err == nil) != want || !want &&
			!strings.Contains(string(output), "permission denied for database") {
			m.Errorf("orders may enter the database %s: %t\n%s", database, err == nil, output)
		}
	}
}
