// Package newcomer_test does what the README says, in a copy of the checkout in a folder that
// others may not enter, with nothing running from before.
package readme_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/devstack"
	"github.com/quadrille-go/quadrille/topology"
)

const root = "../.."

// step is a command of the README and what it printed there.
type step struct {
	command string
	output  []string
}

func readme(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// blocks returns the code blocks of one language, in their order.
func blocks(text, language string) []string {
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+
		"\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

func steps(text string) []step {
	var list []step
	for _, block := range blocks(text, "console") {
		for line := range strings.SplitSeq(strings.TrimRight(block, "\n"), "\n") {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				list = append(list, step{command: command})
				continue
			}
			list[len(list)-1].output = append(list[len(list)-1].output, line)
		}
	}
	return list
}

// clone copies what git knows or would know, to a folder of mode 0700.
func clone(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "quadrille")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	sh(t, root, "git ls-files -co --exclude-standard -z | tar --null -T - -cf - "+
		"--ignore-failed-read 2>/dev/null | tar -xf - -C "+dir)
	return dir
}

// sh runs a command line and returns what it printed on standard output.
func sh(t *testing.T, dir, command string) string {
	t.Helper()
	out, err := try(dir, command)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return out
}

func try(dir, command string) (string, error) {
	var out, errOut bytes.Buffer
	c := exec.Command("sh", "-c", command)
	c.Dir, c.Stdout, c.Stderr = dir, &out, &errOut
	// A newcomer has not started make, even if this test was: a make below another one talks.
	c.Env = slices.DeleteFunc(os.Environ(),
		func(setting string) bool { return strings.HasPrefix(setting, "MAKE") })
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%w\n%s%s", err, out.String(), errOut.String())
	}
	return out.String(), nil
}

// TestReadmeCommands runs every command of the README in the order in which it stands there, and
// compares what is printed, apart from ids, times and the order of what happens at the same time.
func TestReadmeCommands(t *testing.T) {
	dir := clone(t)
	t.Cleanup(func() {
		_, _ = try(dir, "bin/quadrille down")
		for _, stack := range []string{"quadrille", "demo"} { // this copy comes never again
			_ = os.RemoveAll(devstack.Dir(dir, stack))
		}
	})
	ids := map[string]string{} // of the README → of this run
	for _, s := range steps(readme(t)) {
		command := s.command
		for old, now := range ids {
			command = strings.ReplaceAll(command, old, now)
		}
		switch command {
		case "make test": // this is it
			sh(t, dir, "make -n test")
			continue
		case "make demo":
			out := sh(t, dir, command)
			if last := lastLine(out); !regexp.MustCompile(
				`^demo: (1[2-9]|[2-9]\d) orders, \d+ as expected, 0 violations$`).MatchString(last) {
				t.Errorf("make demo ends with %q", last)
			}
			continue
		}
		compare(t, dir, command, s.output, ids)
	}
}

func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

var (
	idPattern   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	timePattern = regexp.MustCompile(`\+\d+ms|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`)
	treePattern = regexp.MustCompile(`[│├└─ ]+`)
)

// compare runs a command until it prints what the README shows: a story may not be complete yet.
func compare(t *testing.T, dir, command string, want []string, ids map[string]string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	repeat := strings.Contains(command, " trace ") || strings.Contains(command, " history ")
	for ; ; <-tick.C {
		out := sh(t, dir, command)
		if len(want) == 0 {
			return
		}
		got := strings.Split(strings.TrimRight(out, "\n"), "\n")
		for i, id := range idPattern.FindAllString(strings.Join(want, "\n"), -1) {
			if now := idPattern.FindAllString(out, -1); i < len(now) {
				ids[id] = now[i]
			}
		}
		if slices.Equal(plain(want), plain(got)) {
			return
		}
		if !repeat || time.Now().After(deadline) {
			t.Fatalf("%s printed\n%s\nthe README says\n%s", command, strings.Join(got, "\n"),
				strings.Join(want, "\n"))
		}
	}
}

// plain drops what differs from run to run.
func plain(lines []string) []string {
	var list []string
	for _, l := range lines {
		l = idPattern.ReplaceAllString(l, "ID")
		l = timePattern.ReplaceAllString(l, "+ms")
		list = append(list, strings.TrimSpace(treePattern.ReplaceAllString(l, " ")))
	}
	slices.Sort(list)
	return list
}

// TestReadmeShowsTheExample: the README's first code is the example that a test runs.
func TestReadmeShowsTheExample(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "example_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)// README begin\n(.*?)// README end`).FindSubmatch(content)
	code := blocks(readme(t), "go")
	if m == nil || len(code) == 0 {
		t.Fatal("there is no code to compare")
	}
	// A stranger pastes a program; an example is the same under another name.
	program := "package main\n\n" + strings.Replace(string(m[1]), "func ExampleService()",
		"func main()", 1)
	if strings.TrimSpace(code[0]) != strings.TrimSpace(program) {
		t.Error("the README's first go block is not what stands between the README marks of " +
			"example_test.go")
	}
}

// TestReadmeDrawsTheTopology: the picture is the one that the topology draws of itself.
func TestReadmeDrawsTheTopology(t *testing.T) {
	pictures := blocks(readme(t), "mermaid")
	if len(pictures) != 1 || pictures[0] != topology.Fulfilment().Mermaid() {
		t.Error("the README's picture is not: quadrille topology show --mermaid")
	}
}
