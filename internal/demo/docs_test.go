package demo

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/cli"
)

var update = flag.Bool("update", false, "write docs/cli.md again")

// The page about the command line is what the program prints about its commands, and each command
// has an example.
func TestCommandLineIsDocumented(t *testing.T) {
	t.Parallel()
	var want, errOut bytes.Buffer
	if code := cli.Run(t.Context(), App(), []string{"help", "--markdown"}, strings.NewReader(""),
		&want, &errOut, func(string) (string, bool) { return "", false }); code != 0 {
		t.Fatalf("exit %d: %s", code, errOut.String())
	}
	path := filepath.Join("..", "..", "docs", "cli.md")
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("docs/cli.md is outdated: %v; this writes it: "+
			"go test ./internal/demo -run Documented -update", err)
	}
	for part := range strings.SplitSeq(want.String(), "# ") {
		if strings.Contains(part, "\nUsage: ") && !strings.Contains(part, "```sh\n") {
			t.Errorf("no example: %s", part)
		}
	}
}
