package consumer

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

type thing struct {
	ID string `db:"id" json:"id"`
	N  int    `db:"n" json:"n"`
}

// op is one step of a reaction on the rows a to e.
type op struct {
	Kind string
	Key  string
}

// A working set behaves like a map, whatever was there and whatever is asked, read and set in which
// order; a key that was not locked panics; and only what was set is written.
func TestRowsAreAMapOfWhatWasLocked(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
		memory, model := Memory{}, map[string]int{}
		for _, k := range rapid.SliceOfDistinct(keys, rapid.ID[string]).Draw(t, "there") {
			model[k] = len(model) + 100
			if err := memory.Put("things", k, thing{k, model[k]}); err != nil {
				t.Fatal(err)
			}
		}
		r := &Rows[string, thing]{}
		table := r.Table("things", "id")
		asked, loaded, set := map[string]bool{}, map[string]bool{}, map[string]bool{}
		steps := rapid.SliceOf(rapid.Custom(func(t *rapid.T) op {
			return op{rapid.SampledFrom([]string{"ask", "load", "get", "set"}).Draw(t, "kind"),
				keys.Draw(t, "key")}
		})).Draw(t, "steps")
		for i, step := range steps {
			switch step.Kind {
			case "ask":
				r.Lock(step.Key)
				asked[step.Key] = true
			case "load":
				if want := len(asked) > len(loaded); table.NeedsLoad() != want {
					t.Fatalf("wanting is %v", !want)
				}
				if err := table.LoadFrom(memory); err != nil {
					t.Fatal(err)
				}
				loaded = maps.Clone(asked)
			case "get":
				expectGet(t, r, step.Key, loaded[step.Key], model)
			case "set":
				if didPanic := panics(func() {
					r.Set(step.Key,
						thing{step.Key, i})
				}); didPanic == loaded[step.Key] {
					t.Fatalf("set %s: loaded is %v, panics %v", step.Key, loaded[step.Key], didPanic)
				}
				if loaded[step.Key] {
					model[step.Key], set[step.Key] = i, true
				}
			}
		}
		update, insert := r.changed()
		if both := slices.Sorted(maps.Keys(set)); !slices.Equal(slices.Sorted(slices.Values(append(update,
			insert...))), both) {
			t.Fatalf("update %v, insert %v, set %v", update, insert, both)
		}
		if !slices.IsSorted(update) || !slices.IsSorted(insert) {
			t.Fatalf("not sorted: %v, %v", update, insert)
		}
		for _, k := range insert {
			if _, there := memory["things"][k]; there {
				t.Fatalf("insert %s, which is there", k)
			}
		}
		if changed, err := table.SaveTo(memory); err != nil || changed != (len(set) > 0) {
			t.Fatalf("changed %v, %v", changed, err)
		}
		for k, n := range model {
			var found thing
			if ok, err := memory.Row("things", k, &found); err != nil || !ok || found != (thing{k, n}) {
				t.Fatalf("%s is %v, want %d", k, found, n)
			}
		}
	})
}

func expectGet(t *rapid.T, r *Rows[string, thing], key string, loaded bool, model map[string]int) {
	want, there := model[key]
	if got, ok := r.Loaded(key); loaded && (ok != there || ok && got.N != want) || !loaded && ok {
		t.Fatalf("Loaded(%s) = %v, %v; want %v, %v", key, got, ok, want, there && loaded)
	}
	if didPanic := panics(func() { r.Get(key) }); didPanic == loaded {
		t.Fatalf("get %s: loaded is %v, panics %v", key, loaded, didPanic)
	}
	if loaded {
		if got, ok := r.Get(key); ok != there || ok && got.N != want {
			t.Fatalf("Get(%s) = %v, %v; want %v, %v", key, got, ok, want, there)
		}
	}
}

func panics(f func()) (did bool) {
	defer func() {
		if cause := recover(); cause != nil {
			if _, ours := cause.(notLocked); !ours {
				panic(cause)
			}
			did = true
		}
	}()
	f()
	return false
}

func TestAStateMustBeMadeOfTables(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]func(){
		"no table": func() { Participant[struct{ N int }]{}.state() },
		"no tags":  func() { Participant[struct{ R Rows[string, thing] }]{}.state() },
		"no key": func() {
			Participant[struct {
				R Rows[string, thing] `table:"things"`
			}]{}.state()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if published, _ := recover().(string); !strings.Contains(published, "not a Set") {
					t.Errorf("it panics with %q", published)
				}
			}()
			state()
		})
	}
}
