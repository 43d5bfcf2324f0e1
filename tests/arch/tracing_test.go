package arch_test

import (
	"os/exec"
	"strings"
	"testing"
)

// A program that imports the kit is not linked with a tracing library, unless it imports package
// quadrilleotel, and then with neither the SDK nor an exporter.
func TestTracingIsNoDependencyOfTheKit(t *testing.T) {
	packages := map[string]bool{}
	for _, f := range files(t) {
		if f.public() && !f.test() {
			packages[strings.TrimSuffix(module+"/"+f.dir(), "/.")] = true
		}
	}
	for p := range packages {
		output, err := exec.CommandContext(t.Context(), "go", "list", "-deps", p).Output()
		if err != nil {
			t.Fatal(err)
		}
		for dependency := range strings.Lines(string(output)) {
			otel := strings.HasPrefix(dependency, "go.opentelemetry.io/")
			heavy := strings.Contains(dependency, "/otel/sdk") || strings.Contains(dependency,
				"/exporters/") || strings.HasPrefix(dependency, "google.golang.org/grpc")
			if otel && p != module+"/quadrilleotel" || heavy {
				t.Errorf("%s is linked with %s", p, strings.TrimSpace(dependency))
			}
		}
	}
}
