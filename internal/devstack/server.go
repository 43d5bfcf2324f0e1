package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	startTimeout = 90 * time.Second // RabbitMQ needs 7 s, and much more on a loaded machine
	portTimeout  = 20 * time.Second // until a server that is ending has released its ports
	moveTimeout  = 2 * time.Second  // the same, if the server may get other ports
	logLines     = 20
	goneChecks   = 5 // negative checks in a row after which a process is gone
)

var errDied = errors.New("it ended right after its start")

// processNames returns the names that the script has for the processes of a server.
func processNames(name string) []string {
	if name == "rabbitmq" {
		return []string{"rabbitmq", "epmd"}
	}
	return []string{name}
}

// start starts a server that is dead, or that another process has started incompletely. If another
// program has taken one of its ports, the server gets other ports if mayMove is set.
func (k *stack) start(ctx context.Context, name string, mayMove bool) error {
	for attempt := 1; ; attempt++ {
		err := k.startOnce(ctx, name, mayMove)
		if err == nil {
			return nil
		}
		tail := k.logTail(name)
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		killed := k.script(clean, "kill", processNames(name)...)
		cancel()
		if ctx.Err() != nil || !mayMove || attempt == 3 || killed != nil || k.portsFree(name) {
			err = errors.Join(err, killed)
			return fmt.Errorf("start %s: %s%s%w", name, k.redact(err.Error()), tail, hiddenCause{err})
		}
		k.logf("another program has taken a port of %s, which gets other ports", name)
		if err := k.movePorts(name); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
	}
}

// hiddenCause keeps the cause of an error for errors.Is and errors.As without its text, which may
// contain secrets. The error has the redacted text instead.
type hiddenCause struct{ err error }

func (hiddenCause) Error() string   { return "" }
func (h hiddenCause) Unwrap() error { return h.err }

func (k *stack) startOnce(ctx context.Context, name string, mayMove bool) error {
	if !k.alive(name) {
		// Processes that are left after a crash may still use the data or the ports.
		if err := k.script(ctx, "kill", processNames(name)...); err != nil {
			return err
		}
		if err := k.claimPorts(ctx, name, mayMove); err != nil {
			return err
		}
		launch := k.launchPostgres
		if name == "rabbitmq" {
			launch = k.launchRabbitMQ
		}
		if err := launch(ctx); err != nil {
			return err
		}
	}
	if err := k.awaitReady(ctx, name); err != nil {
		return err
	}
	pid, _ := k.pid(name)
	return k.record(name, pid, true)
}

// claimPorts waits until the ports of a server are free. If mayMove is set, it picks other ports
// after a short time.
func (k *stack) claimPorts(ctx context.Context, name string, mayMove bool) error {
	timeout := portTimeout
	if mayMove {
		timeout = moveTimeout
	}
	deadline := time.Now().Add(timeout)
	for !k.portsFree(name) {
		if time.Now().After(deadline) {
			if mayMove {
				k.logf("another program has taken a port of %s, which gets other ports", name)
				return k.movePorts(name)
			}
			return fmt.Errorf("another program has taken its port %s: end that program, or stop the "+
				"servers so that they get another port at the next start", k.takenPorts(name))
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// releasePorts picks other ports for stopped servers whose ports another program has taken.
func (k *stack) releasePorts(ctx context.Context) error {
	if k.load() != nil {
		return nil // no ports are known
	}
	for _, name := range []string{"postgres", "rabbitmq"} {
		if err := k.claimPorts(ctx, name, true); err != nil {
			return err
		}
	}
	return nil
}

// awaitReady pings the server until it answers.
func (k *stack) awaitReady(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ping := k.pingPostgres
	if name == "rabbitmq" {
		ping = k.pingRabbitMQ
	}
	for gone := 0; ; {
		err := ping(ctx)
		if err == nil {
			return nil
		}
		// A process may get the name of its program a moment after Start has returned: at an exec, the
		// kernel closes files before it sets the name. One negative check is therefore not enough.
		if gone++; k.alive(name) {
			gone = 0
		}
		if gone == goneChecks {
			return errDied
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("it does not answer: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}

// logTail returns the last lines of a server's log, or "".
func (k *stack) logTail(name string) string {
	file, err := os.Open(k.path(name + ".log"))
	if err != nil {
		return ""
	}
	defer file.Close() //nolint:errcheck // only read
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		_, _ = file.Seek(max(0, size-16<<10), io.SeekStart)
	}
	data, err := io.ReadAll(file)
	if err != nil || len(bytes.TrimSpace(data)) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(k.redact(string(data))), "\n")
	lines = lines[max(0, len(lines)-logLines):]
	return fmt.Sprintf("\nthe end of %s:\n  %s\n", k.path(name+".log"),
		strings.Join(lines, "\n  "))
}

// checkInstalled returns an error if a program is missing. The error says how to install it.
func (k *stack) checkInstalled(servers []string) error {
	var missing []string
	if slices.Contains(servers, "postgres") && newest("/usr/lib/postgresql/*/bin/postgres") == "" {
		missing = append(missing, "PostgreSQL (/usr/lib/postgresql/*/bin/postgres)")
	}
	if slices.Contains(servers, "rabbitmq") {
		if newest(rabbitmqPattern) == "" {
			missing = append(missing, "RabbitMQ ("+rabbitmqPattern+")")
		}
		if _, err := exec.LookPath("epmd"); err != nil {
			missing = append(missing, "Erlang (epmd)")
		}
	}
	if _, err := exec.LookPath("flock"); err != nil {
		missing = append(missing, "flock (package util-linux)")
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("start servers: not installed: %s. Run scripts/install-servers.sh as root "+
		"(`make test` and `make demo` do it), or set QUADRILLE_AMQP_URL, "+
		"QUADRILLE_MANAGEMENT_URL and QUADRILLE_POSTGRES_URL to the addresses of running servers",
		strings.Join(missing, ", "))
}

// newest returns the match with the highest version in its path, or "" if there is none.
func newest(pattern string) string {
	matches, _ := filepath.Glob(pattern) // the patterns are valid constants
	best := ""
	for _, match := range matches {
		if best == "" || slices.Compare(numbers(best), numbers(match)) < 0 {
			best = match
		}
	}
	return best
}

// numbers returns the numbers in a path, so that version 15 is higher than 9.
func numbers(path string) (found []int) {
	digits := func(r rune) bool { return r < '0' || r > '9' }
	for _, field := range strings.FieldsFunc(path, digits) {
		number, _ := strconv.Atoi(field)
		found = append(found, number)
	}
	return found
}
