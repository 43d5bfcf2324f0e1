// Package readme_test runs the commands of the README, in a copy of the checkout in a folder that
// other users may not enter, without any running servers.
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

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/localrun"
)

const root = "../.."

// step is a command of the README with its output there.
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

// blocks returns the code blocks of one language, in order.
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

// clone copies the tracked and untracked files, without the ignored ones, to a folder of mode 0700.
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

// sh runs a command line and returns its standard output.
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
	// The commands must not inherit the variables of a make that started this test: a nested make
	// prints more. GOWORK names the modules of this checkout, and the copy is another one.
	c.Env = slices.DeleteFunc(os.Environ(), func(setting string) bool {
		return strings.HasPrefix(setting, "MAKE") || strings.HasPrefix(setting, "GOWORK=")
	})
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%w\n%s%s", err, out.String(), errOut.String())
	}
	return out.String(), nil
}

// TestReadmeCommands runs every command of the README in order and compares its output, except for
// ids, times and the order of simultaneous events.
func TestReadmeCommands(t *testing.T) {
	dir := clone(t)
	t.Cleanup(func() {
		_, _ = try(dir, "bin/quadrille down")
		for _, stack := range []string{"quadrille", "demo"} { // no later run uses this copy
			_ = os.RemoveAll(localrun.Dir(dir, stack))
		}
	})
	ids := map[string]string{} // of the README → of this run
	for _, s := range steps(readme(t)) {
		command := s.command
		for old, now := range ids {
			command = strings.ReplaceAll(command, old, now)
		}
		switch command {
		case "make test": // it would run this test again
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
	timePattern = regexp.MustCompile(`\+\d+ms|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	treePattern = regexp.MustCompile(`[│├└─ ]+`)
)

// compare runs a command and compares its output with the README. It repeats trace and history,
// which may not be complete yet.
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

// plain removes the ids and times, which differ between runs, and sorts the lines.
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

// TestReadmeShowsTheExample checks that the first Go code of the README is the example in
// example_test.go, which is tested.
func TestReadmeShowsTheExample(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "example_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)// README begin\n(.*?)// README end`).FindSubmatch(content)
	code := blocks(readme(t), "go")
	if m == nil || len(code) == 0 {
		t.Fatal("the README has no Go code, or example_test.go has no README marks")
	}
	// The README shows a program; the example has the same body under another name.
	program := "package main\n\n" + strings.Replace(string(m[1]), "func ExampleService()",
		"func main()", 1)
	if strings.TrimSpace(code[0]) != strings.TrimSpace(program) {
		t.Error("the first Go block of the README differs from the code between the README marks of " +
			"example_test.go: copy it")
	}
}

// TestReadmeDrawsTheTopology checks that the diagram of the README is the one of the topology.
func TestReadmeDrawsTheTopology(t *testing.T) {
	pictures := blocks(readme(t), "mermaid")
	if len(pictures) != 1 || pictures[0] != fulfilment.Topology().Mermaid() {
		t.Error("the diagram of the README differs: replace it with the output of quadrille topology " +
			"show --mermaid")
	}
}
