package compose_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instructions returns the instructions of a Dockerfile, without comments.
func instructions(text string) []string {
	var lines []string
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\\\n", " "), "\n") {
		if line = strings.Join(strings.Fields(line), " "); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

var number = regexp.MustCompile(`^USER [1-9][0-9]*:[1-9][0-9]*$`)

// faults returns the faults of a Dockerfile, for the Go version of the module.
func faults(text, version string) []string {
	var c complaints
	lines := instructions(text)
	last := 0
	for i, line := range lines {
		if strings.HasPrefix(line, "FROM ") {
			last = i
		}
	}
	build, final := lines[:last], lines[last:]
	c.unless(slices.Contains(build, "FROM golang:"+version+" AS build"),
		"the programs are not built with Go %s",
		version)
	c.unless(slices.ContainsFunc(build, func(l string) bool {
		return strings.HasPrefix(l, "RUN CGO_ENABLED=0 go build ") && strings.HasSuffix(l, " ./cmd/...")
	}), "it does not build all commands with CGO_ENABLED=0")
	c.unless(strings.HasPrefix(final[0], "FROM gcr.io/distroless/static-debian12:nonroot"),
		"the final image is made %s", final[0])
	// The user must be a number, because a runtime can only check a number not to be root.
	c.unless(slices.ContainsFunc(final, number.MatchString), "the image may run as root")
	c.unless(!strings.Contains(text, "ARG") && !strings.Contains(text, "ENV"),
		"it has ARG or ENV, whose values the image would keep")
	for _, line := range final {
		c.unless(!strings.HasPrefix(line, "COPY") || strings.HasPrefix(line, "COPY --from=build "),
			"the image contains more than the programs: %s", line)
		c.unless(!strings.HasPrefix(line, "RUN"), "the final image has no shell for: %s", line)
	}
	return c
}

func goVersion(t *testing.T) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^go ([0-9]+\.[0-9]+)`).FindStringSubmatch(read(t, "go.mod"))
	if found == nil {
		t.Fatal("go.mod names no version of Go")
	}
	return found[1]
}

func TestDockerfile(t *testing.T) {
	text := read(t, "Dockerfile")
	for _, fault := range faults(text, goVersion(t)) {
		t.Error(fault)
	}
	for _, b := range []change{
		{"golang:1.", "golang:9."}, {"./cmd/...", "./cmd/orders"}, {"CGO_ENABLED=0", "CGO_ENABLED=1"},
		{"USER 65532:65532", "USER 0:0"},
		{"USER 65532:65532\n", ""}, {"USER 65532:65532", "USER nonroot"},
		{"static-debian12:nonroot", "static-debian12"},
		{"COPY --from=build /out/ /", "COPY . /"}, {"USER 65532", "RUN id\nUSER 65532"},
		{"USER 65532", "ENV QUADRILLE_TOKEN=x\nUSER 65532"},
	} {
		if !strings.Contains(text, b.old) {
			t.Errorf("the Dockerfile has no %q to break", b.old)
		} else if len(faults(strings.Replace(text, b.old, b.new, 1), goVersion(t))) == 0 {
			t.Errorf("the Dockerfile may have %q instead of %q", b.new, b.old)
		}
	}
}

// TestSecretsStayOut checks that neither an image nor the repository contains the secrets or the
// data of `quadrille up`.
func TestSecretsStayOut(t *testing.T) {
	for file, want := range map[string][]string{".dockerignore": {"secrets", ".quadrille", ".git"},
		".gitignore": {"/secrets/", "/.quadrille/"}} {
		lines := strings.Split(read(t, file), "\n")
		for _, line := range want {
			if !slices.Contains(lines, line) {
				t.Errorf("%s does not exclude %s", file, line)
			}
		}
	}
}

// TestImageHasWhatItNeeds checks that .dockerignore does not exclude files that are embedded into
// the programs.
func TestImageHasWhatItNeeds(t *testing.T) {
	ignored := strings.Split(read(t, ".dockerignore"), "\n")
	embedded := 0
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") ||
			strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		folder, _, _ := strings.Cut(rel, string(filepath.Separator))
		if strings.Contains(string(text), "\n//go:embed ") && folder != "tests" {
			embedded++
			if slices.Contains(ignored, folder) || strings.Contains(string(text), "//go:embed testdata") {
				t.Errorf("%s embeds files that .dockerignore excludes", rel)
			}
		}
		return err
	})
	if err != nil || embedded == 0 {
		t.Errorf("found %d files with //go:embed: %v", embedded, err)
	}
}
