package readme_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shown maps each page with Go code to the folder with the program that the code is taken from.
var shown = map[string]string{
	"docs/getting-started.md":  "examples/travel",
	"docs/adding-a-service.md": "tests/system/loyalty",
}

// TestPagesShowTheSource checks that each Go block of a page is in a file of its program, which is
// built and tested. The page may indent it less.
func TestPagesShowTheSource(t *testing.T) {
	for page, folder := range shown {
		content, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		var sources []string
		for _, name := range files {
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, "\n"+string(source))
		}
		code := blocks(string(content), "go")
		if len(code) == 0 {
			t.Errorf("%s has no Go code", page)
		}
		for _, block := range code {
			if !contained(sources, block) {
				t.Errorf("%s shows code that is in no file of %s: copy it again:\n%s", page, folder, block)
			}
		}
	}
}

// contained reports whether the lines of a block follow each other in a source, with the same
// number of tabs before each line that is not empty.
func contained(sources []string, block string) bool {
	lines := strings.Split(strings.TrimRight(block, "\n"), "\n")
	for tabs := range 6 {
		indented := ""
		for _, line := range lines {
			indented += "\n"
			if line != "" {
				indented += strings.Repeat("\t", tabs) + line
			}
		}
		for _, source := range sources {
			if strings.Contains(source, indented+"\n") {
				return true
			}
		}
	}
	return false
}
