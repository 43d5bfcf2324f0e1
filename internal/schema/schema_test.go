package schema_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/schema"
)

var update = flag.Bool("update", false, "write the schemas again, unless a change is breaking")

// The published schemas are those of the payloads that the services run on. A breaking change is
// refused, also with -update.
func TestPublishedSchemasAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	folder := filepath.Join("..", "..", "fulfilment", "schemas")
	current, err := schema.Files(fulfilment.Topology(), fulfilment.Catalogue())
	if err != nil || len(current) != len(fulfilment.Topology().Types()) {
		t.Fatalf("%d schemas: %v", len(current), err)
	}
	published := map[string][]byte{}
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if published[f.Name()], err = os.ReadFile(filepath.Join(folder, f.Name())); err != nil {
			t.Fatal(err)
		}
	}
	err = schema.Review(published, current)
	if errors.Is(err, schema.ErrOutdated) && *update {
		for name, data := range current {
			if err := os.WriteFile(filepath.Join(folder, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	if err != nil {
		t.Errorf("%v\n(go test ./internal/schema -update writes what is not breaking)", err)
	}
}

const published = `{"type":"object","properties":{"id":{"type":"string"},"note":{"type":"string"},
	"lines":{"type":"array","items":{"type":"object","properties":{"n":{"type":"integer"}},
	"required":["n"]}}},"required":["id","lines"]}`

// Consumers of before and of now can read events of before and of now, or the change is refused
// with its reason.
func TestBreakingChangesAreRefused(t *testing.T) {
	t.Parallel()
	change := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(published) }
	for want, now := range map[string]string{
		"":                               change(`"note":{`, `"more":{"type":"object"},"note":{`),
		"id: it is removed or renamed":   change(`"id":{`, `"key":{`, `["id",`, `[`),
		"note: it is removed or renamed": change(`"note":{`, `"remark":{`),
		"note: its type was string and is number": change(`"note":{"type":"string"`,
			`"note":{"type":"number"`),
		"note: it is required":                          change(`["id",`, `["id","note",`),
		"id: it was always there":                       change(`["id",`, `[`),
		"lines[].n: its type was integer and is string": change(`"integer"`, `"string"`),
	} {
		err := schema.Review(map[string][]byte{"a.b.v1.json": []byte(published)},
			map[string][]byte{"a.b.v1.json": []byte(now)})
		switch {
		case want == "" && !errors.Is(err, schema.ErrOutdated):
			t.Errorf("an optional field is added: %v", err)
		case want != "" && (errors.Is(err, schema.ErrOutdated) || err == nil ||
			!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "new major")):
			t.Errorf("%s: %v", want, err)
		}
	}
	one := func(name string) map[string][]byte { return map[string][]byte{name: []byte(published)} }
	if err := schema.Review(one("a.b.v1.json"), one("a.c.v1.json")); err == nil ||
		errors.Is(err, schema.ErrOutdated) {
		t.Errorf("a type is removed: %v", err)
	}
	if err := schema.Review(one("a.b.v1.json"), one("a.b.v2.json")); !errors.Is(err,
		schema.ErrOutdated) {
		t.Errorf("a new major version: %v", err)
	}
	if err := schema.Review(one("a.b.v1.json"), one("a.b.v1.json")); err != nil {
		t.Errorf("nothing changes: %v", err)
	}
}
