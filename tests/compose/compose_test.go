// Package compose_test checks the rules for compose.yaml and its files. It also runs the commands
// of the containers, without containers, on private servers.
package compose_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

const root = "../.."

// project is the parsed compose.yaml, with its text.
type project struct {
	*types.Project
	text string
}

func (p project) services() []string {
	return slices.DeleteFunc(p.programs(), func(name string) bool { return name == "simulators" })
}

// programs returns the services and the simulators.
func (p project) programs() []string {
	var names []string
	for _, s := range p.ServiceNames() {
		if hasEnv(p.Services[s], "QUADRILLE_") {
			names = append(names, s)
		}
	}
	return names
}

func hasEnv(s types.ServiceConfig, prefix string) bool {
	for name := range s.Environment {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// oneShot reports whether a service prepares something and ends.
func (p project) oneShot(name string) bool {
	for _, s := range p.Services {
		if s.DependsOn[name].Condition == types.ServiceConditionCompletedSuccessfully {
			return true
		}
	}
	return false
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// load loads a compose file as if it were in dir, in an empty environment, so that a variable
// without a value would be an error or empty.
func load(dir, text string) (project, error) {
	path := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return project{}, err
	}
	options, err := cli.NewProjectOptions([]string{path}, cli.WithWorkingDirectory(dir),
		cli.WithResolvedPaths(true))
	if err != nil {
		return project{}, err
	}
	loaded, err := options.LoadProject(context.Background())
	return project{loaded, text}, err
}

func TestComposeFollowsItsRules(t *testing.T) {
	p, err := load(t.TempDir(), read(t, "compose.yaml"))
	if err != nil {
		t.Fatalf("compose.yaml is not valid: %v", err)
	}
	for _, rule := range rules(t) {
		for _, complaint := range rule.broken(p) {
			t.Errorf("%s: %s", rule.name, complaint)
		}
	}
}

// TestRulesCanBeBroken breaks each rule, because a rule that never fails would prove nothing.
func TestRulesCanBeBroken(t *testing.T) {
	text := read(t, "compose.yaml")
	for _, rule := range rules(t) {
		if len(rule.breaks) == 0 {
			t.Errorf("%s: the rule has no change that breaks it", rule.name)
		}
		for _, b := range rule.breaks {
			if !strings.Contains(text, b.old) {
				t.Errorf("%s: compose.yaml has no %q to break", rule.name, b.old)
				continue
			}
			p, err := load(t.TempDir(), strings.Replace(text, b.old, b.new, 1))
			if err != nil {
				t.Errorf("%s: compose.yaml is not valid with %q instead of %q: %v", rule.name, b.new, b.old,
					err)
				continue
			}
			if len(rule.broken(p)) == 0 {
				t.Errorf("%s: the rule accepts %q instead of %q", rule.name, b.new, b.old)
			}
		}
	}
}

func TestComposeIsChecked(t *testing.T) {
	text := strings.Replace(read(t, "compose.yaml"), "healthcheck:", "healthchekc:", 1)
	if _, err := load(t.TempDir(), text); err == nil {
		t.Error("a misspelt key is accepted")
	}
}
