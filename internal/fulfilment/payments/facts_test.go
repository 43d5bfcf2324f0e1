package payments_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
)

// released opens the file of a version that was released: it is as an old service has written it.
func released(t *testing.T, eventType string, major int) (events.Payload, error) {
	t.Helper()
	path := filepath.Join("testdata", "facts", fmt.Sprintf("%s.v%d.json", eventType, major))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: every version that was ever written has a file, which stays as it is", err)
	}
	e, err := events.NewCatalogue(payments.Account{}.Facts()...).Open(events.Record{
		ID: events.NewID(), Type: eventType, DataSchema: fmt.Sprintf("urn:quadrille:%s:%d", eventType,
			major), Data: []byte(strings.TrimSpace(string(data))),
	})
	return e.Data, err
}

// Every version of every fact that was released is replayed, and gives the states that it gave
// then.
func TestEveryReleasedVersionIsReplayed(t *testing.T) {
	t.Parallel()
	var golden struct {
		Version int
		States  map[string]payments.Account
	}
	data, err := os.ReadFile("testdata/fold.json")
	if err == nil {
		err = json.Unmarshal(data, &golden)
	}
	if err != nil {
		t.Fatal(err)
	}
	var state payments.Account
	replayed := 0
	for _, sample := range state.Facts() {
		last := 1
		if m, ok := sample.(interface{ Major() int }); ok {
			last = m.Major()
		}
		for major := 1; major <= last; major++ {
			fact, err := released(t, sample.EventType(), major)
			if err != nil {
				t.Fatal(err)
			}
			state = state.Fold(fact)
			replayed++
			name := fmt.Sprintf("%s.v%d", sample.EventType(), major)
			if want, ok := golden.States[name]; !ok || state != want {
				t.Errorf("after %s: %+v, want %+v; a fold that has changed needs another FoldVersion, and "+
					"testdata/fold.json its states", name, state, want)
			}
		}
	}
	if state.FoldVersion() != golden.Version || replayed != len(golden.States) {
		t.Errorf("fold version %d and %d facts, testdata/fold.json is of version %d with %d",
			state.FoldVersion(), replayed, golden.Version, len(golden.States))
	}
	if files, _ := filepath.Glob("testdata/facts/*.json"); len(files) != replayed {
		t.Errorf("%d files, %d were replayed", len(files), replayed)
	}
}

func TestTheFirstDepositsHadDecimalAmounts(t *testing.T) {
	t.Parallel()
	known := events.NewCatalogue(payments.Account{}.Facts()...)
	for text, want := range map[string]int64{
		`{"customer":"a","currency":"EUR","amount":"0.01"}`:                 1,
		`{"customer":"a","currency":"EUR","amount":"7"}`:                    700,
		`{"customer":"a","currency":"JPY","amount":"1200"}`:                 1200,
		`{"customer":"a","currency":"KWD","amount":"1.234"}`:                1234,
		`{"customer":"a","currency":"EUR","amount":"92233720368547758.07"}`: 1<<63 - 1,
		`{"customer":"a","currency":"EUR","amount":"92233720368547758.08"}`: 0,
		`{"customer":"a","currency":"EUR","amount":"0.001"}`:                0,
		`{"customer":"a","currency":"JPY","amount":"0.5"}`:                  0,
		`{"customer":"a","currency":"EUR","amount":1250}`:                   0,
		`{"customer":"a","currency":"XXQ","amount":"1"}`:                    0,
	} {
		e, err := known.Open(events.Record{ID: events.NewID(), Type: "funds.deposited",
			DataSchema: "urn:quadrille:funds.deposited:1", Data: []byte(text)})
		if want == 0 && err == nil {
			t.Errorf("%s: taken as %+v", text, e.Data)
		}
		if d, ok := e.Data.(payments.FundsDeposited); want > 0 && (!ok || d.Amount != want) {
			t.Errorf("%s: %+v, %v", text, e.Data, err)
		}
	}
}
