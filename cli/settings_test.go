package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/topology"
)

// A setting that is missing is named with the file in which it was looked for.
func TestMissingSettingNamesTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, []byte("export QUADRILLE_TOKEN='x'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	app := cli.App{Name: "club", Topology: topology.Topology{Name: "club",
		Services: []topology.Service{{Name: "members"}}}}
	var out strings.Builder
	code := cli.Run(t.Context(), app, []string{"parked", "list", "--env-file", path},
		strings.NewReader(""), &out, &out, func(string) (string, bool) { return "", false })
	if code != cli.ExitUnreachable || !strings.Contains(out.String(),
		"QUADRILLE_MEMBERS_URL is not set, and "+path+" does not have it") {
		t.Errorf("exit %d: %s", code, &out)
	}
}
