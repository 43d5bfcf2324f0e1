package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// lockedText collects what is written while it is read.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// watch runs a command that goes on until its context ends, and returns its lines.
func (b *services) watch(args ...string) (lines <-chan string,
	stop func() (code int, notes string)) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	out, in := io.Pipe()
	all, ended := make(chan string, 1000), make(chan int, 1)
	var notes lockedText
	go func() {
		code := cli.Run(ctx, App(), args, strings.NewReader(""), in, &notes,
			func(name string) (string, bool) { value, ok := b.settings[name]; return value, ok })
		_ = in.Close()
		ended <- code
	}()
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			all <- s.Text()
		}
		close(all)
	}()
	if args[0] == "tail" {
		quadrilletest.WaitFor(b, "tail reads", func() (bool, string) {
			return strings.Contains(notes.String(), "reading fulfilment"), notes.String()
		})
	}
	return all, func() (int, string) { cancel(); return <-ended, notes.String() }
}

// until reads lines until one matches a pattern, and returns all of them.
func until(t *testing.T, lines <-chan string, pattern string) (read []string) {
	t.Helper()
	timeout := time.After(quadrilletest.Timeout)
	for {
		select {
		case line, ok := <-lines:
			if read = append(read, line); !ok {
				t.Fatalf("no line matches %s: %q", pattern, read)
			}
			if regexp.MustCompile(pattern).MatchString(line) {
				return read
			}
		case <-timeout:
			t.Fatalf("no line matches %s in time: %q", pattern, read)
		}
	}
}

// An order is declined. A person sees that as it happens, and why it happened, from the last event
// and from one in the middle.
func TestAnOrderIsSeenAsItHappens(t *testing.T) {
	t.Parallel()
	b := startServices(t)
	b.check(commandLine{"stock receive teapot 5", "", 0, "teapot"}, false)
	types, stopTypes := b.watch("tail", "--type", "payment.*", "-o", "json")
	code, out, errOut := b.run("", "order", "place", "--sample", "--customer", "pat", "-o", "json")
	var order struct{ ID string }
	if err := json.Unmarshal([]byte(out), &order); err != nil || code != 0 {
		t.Fatal(code, out, errOut, err)
	}
	tail, stopTail := b.watch("tail", "--subject", order.ID)
	follow, stopFollow := b.watch("trace", "--follow", order.ID)
	following, stopFollowing := b.watch("trace", "--follow", order.ID, "-o", "json")

	line := until(t, types, "")[0]
	var e cli.Wire
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Type != "payment.declined" ||
		e.Subject != order.ID || e.Exchange != "payments.events" || e.CausationID == "" {
		t.Fatalf("%s (%v)", line, err)
	}
	until(t, follow, "order.cancelled +orders")
	until(t, follow, "order.cancelled +handled by payments")
	until(t, following, `"type":"order.cancelled"`)
	b.check(commandLine{"order place --sample --customer pat", "", 0, "placed"}, false)
	until(t, types, "")
	b.check(commandLine{"replay --subject " + order.ID, "", 0, "shipping: 0 events"}, true)
	until(t, tail, "orders.events +order.cancelled +"+order.ID)

	pattern := regexp.MustCompile(`(?s)^ +order.cancelled .*\nbecause +payment.declined .*` +
		`\nbecause +order.placed .*\nthat was a command to orders`)
	b.check(commandLine{"why " + order.ID, "", 0, "because"}, true)
	if _, out, _ := b.run("", "why", order.ID); !pattern.MatchString(out) {
		t.Errorf("why: %s", out)
	}
	if _, out, _ := b.run("", "why", e.ID); !strings.Contains(out, "because  order.placed") ||
		strings.Contains(out, "order.cancelled") {
		t.Errorf("why of the event: %s", out)
	}
	b.check(commandLine{"why " + events.NewID(), "", cli.ExitNotFound, "no service"}, false)
	b.check(commandLine{"tail --type [", "", cli.ExitUsage, "any characters"}, false)
	for name, stop := range map[string]func() (int, string){"tail": stopTail, "types": stopTypes,
		"follow": stopFollow, "following": stopFollowing} {
		if code, notes := stop(); code != 0 {
			t.Errorf("%s: exit %d: %s", name, code, notes)
		}
	}
	for line := range types {
		if !strings.Contains(line, `"type":"payment.`) {
			t.Errorf("an event of another type: %s", line)
		}
	}
	for line := range tail {
		if !strings.Contains(line, order.ID) {
			t.Errorf("an event of another order: %s", line)
		}
	}
}

// What services do and what waits is shown, again and again.
func TestWhatServicesDoIsShown(t *testing.T) {
	t.Parallel()
	b := startServices(t)
	b.check(commandLine{"top --once", "", 0, "inventory"}, true)
	b.check(commandLine{"top --every 1ms", "", cli.ExitUsage, "--every"}, false)
	lines, stop := b.watch("top", "--every", "100ms", "-o", "json")
	until(t, lines, "")
	for range 3 {
		b.check(commandLine{"order place --sample --customer pat --card tok_visa", "", 0, "placed"},
			false)
	}
	handled, waited, limit := 0.0, false, time.Now().Add(quadrilletest.Timeout)
	for handled < 0.5 || !waited { // rates of a tenth of a second
		if time.Now().After(limit) {
			t.Fatalf("handled %.1f, calls wait %t", handled, waited)
		}
		var l struct{ Services []map[string]any }
		if err := json.Unmarshal([]byte(until(t, lines, "")[0]), &l); err != nil || len(l.Services) != 4 {
			t.Fatalf("%+v (%v)", l, err)
		}
		payments := l.Services[slices.IndexFunc(l.Services, func(s map[string]any) bool {
			return s["service"] == "payments"
		})]
		handled += payments["handled_sec"].(float64)
		waited = payments["waiting"].(map[string]any)["calls"] == 3.0
	}
	if code, notes := stop(); code != 0 {
		t.Errorf("exit %d: %s", code, notes)
	}
	b.settings["QUADRILLE_PAYMENTS_URL"] += "," + "http://127.0.0.1:1"
	b.check(commandLine{"breakers", "", cli.ExitPartial, "payments at http://127.0.0.1:1"}, false)
}

// An order whose payment is parked is stuck, with the reason, also after it has ended; others are
// not. An order that is open for long is stuck, too.
func TestStuckOrdersAreListed(t *testing.T) {
	t.Parallel()
	b := startServices(t)
	b.check(commandLine{"order stuck", "", 0, ""}, true)
	b.check(commandLine{"order stuck --older 0s", "", cli.ExitUsage, "--older"}, false)
	order := events.NewID()
	b.check(commandLine{"publish order.placed --no-validate --data {} --id " + order, "", 0, order},
		false)
	b.check(commandLine{"order place --sample --customer pat --card tok_visa", "", 0, "placed"}, false)
	var found struct{ Stuck []stuckOrder }
	quadrilletest.WaitFor(t, "a charge that waits", func() (bool, string) {
		code, out, errOut := b.run("", "order", "stuck", "--older", "1ms", "-o", "json")
		err := json.Unmarshal([]byte(out), &found)
		return err == nil && code == cli.ExitProblems && len(found.Stuck) == 1 &&
			found.Stuck[0].Waiting != nil && found.Stuck[0].Waiting.Place == "call" &&
			found.Stuck[0].Waiting.Reason != "", fmt.Sprint(code, out, errOut, err)
	})
	b.check(commandLine{"order stuck --older 1h", "", 0, ""}, true)
	b.check(commandLine{"order stuck --older 1ms", "", cli.ExitProblems, found.Stuck[0].Order}, false)
}
