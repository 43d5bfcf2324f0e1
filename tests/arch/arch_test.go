// Package arch_test checks the rules of the project: which package may import which, how large
// files and functions may be, which packages may publish and acknowledge, and that each guarantee
// names a test that exists.
package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const module = "github.com/quadrille-go/quadrille"

// The limits of files, functions and lines.
const (
	maxFileLines     = 300
	maxTestFileLines = 500
	maxFuncLines     = 70
	maxColumns       = 100 // a tab counts as one
)

// file is a parsed Go file and its path relative to the root.
type file struct {
	path string
	ast  *ast.File
	set  *token.FileSet
}

func (f file) test() bool  { return strings.HasSuffix(f.path, "_test.go") }
func (f file) dir() string { return filepath.Dir(f.path) }
func (f file) lines() int  { return f.set.File(f.ast.Pos()).LineCount() }

// text returns the lines of the file.
func (f file) text() []string {
	content, err := os.ReadFile(filepath.Join("..", "..", f.path))
	if err != nil {
		panic(err) // the file was just parsed
	}
	return strings.Split(string(content), "\n")
}

// support reports whether the file serves tests, and otherwise only the demo and the commands that
// run everything on one machine.
func (f file) support() bool {
	return strings.HasPrefix(f.path, "tests/") || slices.Contains([]string{"internal/web/webtest",
		"internal/localrun", "internal/servertest", "internal/servertest/leaks",
		"consumer/internal/consumertest", "internal/telemetry/otlptest", "internal/tracing/tracingtest",
		"outbox/internal/outboxtest"}, f.dir())
}

// public reports whether a user of the kit may import the file's package.
func (f file) public() bool {
	for part := range strings.SplitSeq(f.dir(), "/") {
		if part == "internal" || part == "cmd" || part == "tests" || part == "examples" {
			return false
		}
	}
	return true
}

// kit reports whether the file belongs to the kit: to a public package, or to the machine room.
func (f file) kit() bool { return f.public() || slices.Contains(ownOfKit, f.dir()) }

// demo reports whether the file belongs to the four services, or to the programs around them.
func (f file) demo() bool {
	return !f.kit() && !f.support() && !f.example() &&
		(strings.HasPrefix(f.path, "internal/") || strings.HasPrefix(f.path, "cmd/"))
}

// example reports whether the file shows how a user writes a service.
func (f file) example() bool {
	return strings.HasPrefix(f.path, "examples/") || strings.HasPrefix(f.path, "tests/system/loyalty/")
}

func (f file) imports() []string {
	var list []string
	for _, i := range f.ast.Imports {
		list = append(list, strings.Trim(i.Path.Value, `"`))
	}
	return list
}

// files parses every Go file of the module.
func files(t *testing.T) []file {
	t.Helper()
	root := filepath.Join("..", "..")
	var files []file
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "bin" ||
			d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		from, err := filepath.Rel(root, path)
		files = append(files, file{from, parsed, set})
		return err
	})
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	return files
}

// mayImport lists the packages of the project that each package of the kit may import. The public
// ones come first, then the machine room, which no user sees.
var mayImport = map[string][]string{
	"events":     {},
	"topology":   {},
	"admin":      {"events"},
	"fulfilment": {"events", "topology"},
	"postgres":   {"internal/pg"},
	"outbox": {"events", "internal/logfields", "internal/pg", "internal/rabbit", "internal/tally",
		"internal/tracing"},
	"outbox/cdc":    {"outbox", "internal/pg"},
	"consumer":      {"events", "topology", "internal/engine", "internal/inbox", "internal/pg"},
	"idempotency":   {".", "internal/pg"},
	"resilience":    {".", "admin", "internal/pg"},
	"eventstore":    {".", "admin", "consumer", "events", "internal/pg"},
	"quadrilleprom": {".", "admin", "consumer", "events"},
	"quadrilleotel": {".", "events", "internal/tracing"},
	"check":         {"consumer", "events", "topology"},
	"cli": {"admin", "events", "topology", "internal/export",
		"internal/lint", "internal/rabbit"},
	"quadrilletest": {".", "check", "consumer", "events", "topology", "internal/localrun",
		"internal/rabbit", "internal/servertest"},
	".": {"admin", "consumer", "events", "outbox", "topology", "internal/engine", "internal/inbox",
		"internal/backlog", "internal/logfields", "internal/pg", "internal/rabbit", "internal/tally",
		"internal/tracing"},

	"internal/pg":     {},
	"internal/lint":   {"topology"},
	"internal/schema": {"events", "topology"},
	"internal/export": {"events", "topology", "internal/schema"},
	"internal/rabbit": {"events", "topology"},
	"internal/inbox":  {"events", "internal/pg"},
	"internal/engine": {"events", "topology", "internal/inbox", "internal/logfields", "internal/pg",
		"internal/rabbit", "internal/tally", "internal/tracing"},
	"internal/tally":   {},
	"internal/tracing": {"events"},
	"internal/backlog": {"internal/pg"},
}

// heavy lists the external modules that only the named packages of the kit may import.
var heavy = map[string][]string{
	"github.com/spf13/cobra":         {"cli"},
	"github.com/prometheus":          {"quadrilleprom"},
	"go.opentelemetry.io":            {"quadrilleotel"},
	"github.com/pressly/goose/v3":    {"internal/pg"},
	"github.com/bojanz/currency":     {"fulfilment"},
	"github.com/rabbitmq/amqp091-go": {"internal/rabbit", "internal/engine", "quadrilletest"},
	"github.com/rs/zerolog": {"internal/rabbit", "internal/engine", "outbox", "outbox/cdc",
		"resilience", "eventstore", "idempotency", "."},
	"github.com/invopop/jsonschema":      {"internal/schema"},
	"github.com/sony/gobreaker/v2":       {"resilience"},
	"github.com/jackc":                   {"outbox/cdc"},
	"github.com/compose-spec/compose-go": {},
	"github.com/cenkalti/backoff/v4":     {"internal/rabbit", "resilience", "."},
}

// ownOfKit lists the internal packages that belong to the kit. The demo is built as a stranger
// would build it, and so it may not use them.
var ownOfKit = []string{"internal/pg", "internal/rabbit", "internal/inbox", "internal/engine",
	"internal/lint", "internal/schema", "internal/export", "internal/tally", "internal/backlog",
	"internal/tracing"}

func TestImports(t *testing.T) {
	for _, f := range files(t) {
		if f.test() {
			continue
		}
		for _, i := range f.imports() {
			if f.kit() {
				kitImport(t, f, i)
			}
			if own, ok := serviceOf(f.path); ok {
				if other, ok := serviceOf(strings.TrimPrefix(i, module+"/")); ok && other != own {
					t.Errorf("%s: service %s imports service %s", f.path, own, other)
				}
			}
			if f.example() && strings.HasPrefix(i, module+"/internal") {
				t.Errorf("%s: an example may use only the public packages, and imports %s", f.path, i)
			}
			if own, ok := strings.CutPrefix(i, module+"/"); ok && f.demo() &&
				slices.Contains(ownOfKit, own) {
				t.Errorf("%s: the demo may use only the kit's public packages, and imports %s", f.path, i)
			}
		}
	}
}

func serviceOf(path string) (string, bool) {
	for _, name := range []string{"orders", "payments", "inventory", "shipping"} {
		own := "internal/fulfilment/" + name
		if path == own || strings.HasPrefix(path, own+"/") {
			return name, true
		}
	}
	return "", false
}

func kitImport(t *testing.T, f file, path string) {
	allowed, known := mayImport[f.dir()]
	if !known {
		t.Errorf("%s: package %s is not in mayImport: add it with the packages that it may import",
			f.path, f.dir())
	}
	if path == module {
		path = module + "/."
	}
	if own, ok := strings.CutPrefix(path, module+"/"); ok && !slices.Contains(allowed, own) {
		t.Errorf("%s: %s may not import %s: see mayImport and heavy", f.path, f.dir(), own)
	}
	for prefix, users := range heavy {
		if (path == prefix || strings.HasPrefix(path, prefix+"/")) && !slices.Contains(users, f.dir()) {
			t.Errorf("%s: %s may not import %s: see mayImport and heavy", f.path, f.dir(), path)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, f := range files(t) {
		limit := maxFileLines
		if f.test() || f.support() {
			limit = maxTestFileLines
		}
		for n, line := range f.text() {
			if columns := utf8.RuneCountInString(line); columns > maxColumns {
				t.Errorf("%s:%d has %d columns, at most %d", f.path, n+1, columns, maxColumns)
			}
		}
		if n := f.lines(); n > limit {
			t.Errorf("%s has %d lines, at most %d", f.path, n, limit)
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				if n := f.set.Position(fn.End()).Line - f.set.Position(fn.Pos()).Line + 1; n > maxFuncLines {
					t.Errorf("%s: %s has %d lines, at most %d", f.path, fn.Name.Name, n, maxFuncLines)
				}
			}
		}
	}
}

func TestEveryPackageHasADocComment(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range files(t) {
		if !f.test() {
			documented[f.dir()] = documented[f.dir()] || f.ast.Doc != nil
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no package comment", dir)
		}
	}
}

// restricted lists the calls that only the packages in some folders may make. Tests are exempt.
var restricted = []struct {
	selector *regexp.Regexp
	in       []string
	why      string
}{
	{regexp.MustCompile(`\.Ack$`), []string{"internal/rabbit", "internal/engine", "quadrilletest"},
		"only the engine acknowledges deliveries"},
	{regexp.MustCompile(`\.PublishWithDeferredConfirm$`), []string{"internal/rabbit"},
		"only the confirmed publisher publishes"},
	{regexp.MustCompile(`^rabbit\.NewPublisher$`), []string{"outbox", "cli", "internal/demo"},
		"services publish through the outbox"},
	{regexp.MustCompile(`^os\.(Getenv|LookupEnv|Environ)$`), []string{"cli", "internal/boot",
		"internal/demo", "examples/monolith", "examples/travel",
		"examples/cloudevents"}, "the kit reads no environment"},
	{regexp.MustCompile(`\.(Beginx|BeginTx|BeginTxx)$`), []string{"internal/pg"},
		"transactions begin in pg.InTx"},
}

func TestRestrictedCalls(t *testing.T) {
	for _, f := range files(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			name := "." + s.Sel.Name
			if x, ok := s.X.(*ast.Ident); ok {
				name = x.Name + name
			}
			if f.test() {
				if name == "time.Sleep" || strings.HasPrefix(name, "t.Skip") {
					t.Errorf("%s: %s: wait for a signal, and fail when a server is missing", f.path, name)
				}
				return true
			}
			if f.support() {
				return true
			}
			for _, rule := range restricted {
				if rule.selector.MatchString(name) && !slices.Contains(rule.in, f.dir()) {
					t.Errorf("%s: %s: %s", f.path, name, rule.why)
				}
			}
			return true
		})
	}
}

// TestGuarantees reads the tables of docs/guarantees.md: each row must name a test that exists and
// the break with which the test was seen to fail.
func TestGuarantees(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "docs", "guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, f := range files(t) {
		if !f.test() {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				tests[strings.Replace(f.dir()+"."+fn.Name.Name, "..", "quadrille.", 1)] = true
			}
		}
	}
	row := regexp.MustCompile(`^\| ([A-Z]{2,4}-[0-9]{2}|[A-Z]+[0-9]+) \| (.+) \| (.+) \| (.+) \|$`)
	name := regexp.MustCompile("`([a-z0-9/.]+)\\.((?:Test|Example|Fuzz)[A-Za-z0-9_]*)(?:/[^`]*)?`")
	rows := 0
	for line := range strings.SplitSeq(string(content), "\n") {
		m := row.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		rows++
		named := name.FindAllStringSubmatch(m[3], -1)
		if len(named) == 0 {
			t.Errorf("%s names no test: %s", m[1], m[3])
		}
		for _, n := range named {
			if !tests[n[1]+"."+n[2]] {
				t.Errorf("%s names %s.%s, which does not exist", m[1], n[1], n[2])
			}
		}
		if strings.TrimSpace(m[4]) == "" || m[4] == "–" {
			t.Errorf("%s names no break with which its test was seen to fail", m[1])
		}
	}
	consistency, err := os.ReadFile(filepath.Join("..", "..", "docs", "consistency.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := name.FindAllStringSubmatch(string(consistency), -1)
	for _, n := range named {
		if !tests[n[1]+"."+n[2]] {
			t.Errorf("docs/consistency.md names %s.%s, which does not exist", n[1], n[2])
		}
	}
	if len(named) < 8 {
		t.Errorf("docs/consistency.md names only %d tests, want at least 8", len(named))
	}
	if rows < 60 {
		t.Errorf("docs/guarantees.md has only %d rows in the expected form, want at least 60", rows)
	}
}
