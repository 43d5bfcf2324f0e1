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
	startTimeout = 90 * time.Second // RabbitMQ needs 7 s; a loaded machine much more
	portTimeout  = 20 * time.Second // for a dying server to let go of its ports
	moveTimeout  = 2 * time.Second  // the same, where the server may get others
	logLines     = 20
	goneLooks    = 5 // after which a process is gone
)

var errDied = errors.New("it ended right after its start")

// parts are the names, for the script, of all processes that make up a server.
func parts(name string) []string {
	if name == "rabbitmq" {
		return []string{"rabbitmq", "epmd"}
	}
	return []string{name}
}

// start brings up a server which is dead or which someone else did not finish
// to start. When another program took one of its ports it moves, if it may.
func (k *stack) start(ctx context.Context, name string, mayMove bool) error {
	for attempt := 1; ; attempt++ {
		err := k.startOnce(ctx, name, mayMove)
		if err == nil {
			return nil
		}
		tail := k.logTail(name)
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		killed := k.script(clean, "kill", parts(name)...)
		cancel()
		if ctx.Err() != nil || !mayMove || attempt == 3 || killed != nil || k.portsFree(name) {
			err = errors.Join(err, killed)
			return fmt.Errorf("start %s: %s%s%w", name, k.redact(err.Error()), tail, hidden{err})
		}
		k.logf("a port of %s was taken by another program; it gets others", name)
		if err := k.movePorts(name); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
	}
}

// hidden keeps the cause of an error for errors.Is and errors.As, while its
// text, which may hold secrets, stands redacted in front of it.
type hidden struct{ err error }

func (hidden) Error() string   { return "" }
func (h hidden) Unwrap() error { return h.err }

func (k *stack) startOnce(ctx context.Context, name string, mayMove bool) error {
	if !k.alive(name) {
		// What a crash left over would hold the data or the ports.
		if err := k.script(ctx, "kill", parts(name)...); err != nil {
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

// claimPorts waits until the ports are free, or moves to others where it may.
func (k *stack) claimPorts(ctx context.Context, name string, mayMove bool) error {
	atMost := portTimeout
	if mayMove {
		atMost = moveTimeout
	}
	deadline := time.Now().Add(atMost)
	for !k.portsFree(name) {
		if time.Now().After(deadline) {
			if mayMove {
				k.logf("a port of %s is taken by another program; it gets others", name)
				return k.movePorts(name)
			}
			return fmt.Errorf("another program took one of its ports, %s: end that program, or stop the "+
				"servers, which gives up the port",
				k.takenPorts(name))
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// releasePorts gives up the ports that other programs took from servers that have stopped.
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

// awaitReady asks the server until it answers.
func (k *stack) awaitReady(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ask := k.pingPostgres
	if name == "rabbitmq" {
		ask = k.pingRabbitMQ
	}
	for gone := 0; ; {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		// A process has the name of its program only a moment after its start has been reported to us: in
		// the kernel what is to be closed at an exec is closed before the name is set. So one look is not
		// enough.
		if gone++; k.alive(name) {
			gone = 0
		}
		if gone == goneLooks {
			return errDied
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("it does not answer: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}

// logTail returns the end of a server's log, on lines of its own.
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
	return fmt.Sprintf("\nthe end of %s:\n  %s\n", k.path(name+".log"), strings.Join(lines, "\n  "))
}

// install checks that all programs are there before anything is started, and
// otherwise says how to get them.
func (k *stack) install(servers []string) error {
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
		"QUADRILLE_MANAGEMENT_URL and QUADRILLE_POSTGRES_URL to servers that run already",
		strings.Join(missing, ", "))
}

// newest returns the match with the highest version in its path, "" for none.
func newest(pattern string) string {
	matches, _ := filepath.Glob(pattern) // the patterns are constants and good
	best := ""
	for _, match := range matches {
		if best == "" || slices.Compare(numbers(best), numbers(match)) < 0 {
			best = match
		}
	}
	return best
}

// numbers are the numbers in a path, so that 15 sorts above 9.
func numbers(path string) (found []int) {
	digits := func(r rune) bool { return r < '0' || r > '9' }
	for _, field := range strings.FieldsFunc(path, digits) {
		number, _ := strconv.Atoi(field)
		found = append(found, number)
	}
	return found
}
