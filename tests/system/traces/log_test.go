package traces_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/tests/system/env"
)

// wantLog is what the id of an order finds in the log of each service, for an order whose
// reservation failed once, and whose shipment was parked and redriven.
var wantLog = map[string][]string{
	"orders": {
		"event published: order.placed",
		"event handled: shipment.scheduled, attempt 1",
		"event published: order.confirmed",
	},
	"payments": {
		"event handled: order.placed, attempt 1",
		"call answered: payments.charge, attempt 1",
		"event published: payment.captured",
	},
	"inventory": {
		"event handled: order.placed, attempt 1",
		"event failed, will be tried again: payment.captured, attempt 1",
		"event handled: payment.captured, attempt 2",
		"event published: stock.reserved",
		"event handled: order.confirmed, attempt 1",
	},
	"shipping": {
		"event handled: order.placed, attempt 1",
		"event parked: stock.reserved, attempt 1",
		"parked event was redriven: stock.reserved",
		"event handled: stock.reserved, attempt 1",
		"call answered: shipping.book, attempt 1",
		"event published: shipment.scheduled",
	},
}

// lines collects what is logged. It is safe for concurrent use.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(bytes.TrimSpace(p)))
	return len(p), nil
}

// with returns the lines that contain a text.
func (l *lines) with(text string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.all),
		func(line string) bool { return !strings.Contains(line, text) })
}

// line is a line of the log about an event.
type line struct {
	Service     string `json:"service"`
	Release     string `json:"release"`
	Message     string `json:"message"`
	Event       string `json:"event_id"`
	Type        string `json:"event_type"`
	Subject     string `json:"subject"`
	Correlation string `json:"correlation_id"`
	Causation   string `json:"causation_id"`
	Trace       string `json:"trace_id"`
	Attempt     int    `json:"attempt"`
}

// The id of an order finds each step of it in the logs of all services: what was published and
// handled, what failed and was tried again, what was parked and redriven, and the calls. Each line
// has each id once.
func TestTheIDOfAnOrderFindsItsLog(t *testing.T) {
	t.Parallel()
	logs := map[string]*lines{"orders": {}, "payments": {}, "inventory": {}, "shipping": {}}
	r := start(t, func(service string, c *quadrille.Config) {
		c.Log = zerolog.New(logs[service]).Level(zerolog.DebugLevel)
	}, func(_ string, h http.Handler) http.Handler { return h })
	id, parked := r.fulfil()
	for service, want := range wantLog {
		var found []line
		env.Await(t, "the log of "+service, func() (string, bool) {
			found = nil
			var steps []string
			for _, text := range logs[service].with(id) {
				var l line
				if err := json.Unmarshal([]byte(text), &l); err != nil { // also two fields of one name
					t.Fatalf("%s: %v", text, err)
				}
				step := l.Message + ": " + l.Type
				if l.Attempt > 0 {
					step += fmt.Sprintf(", attempt %d", l.Attempt)
				}
				found, steps = append(found, l), append(steps, step)
			}
			// Two that happen at the same time are logged in any order.
			return strings.Join(steps, "\n"), slices.Equal(slices.Sorted(slices.Values(steps)),
				slices.Sorted(slices.Values(want)))
		})
		for _, l := range found {
			root := l.Type == "order.placed"
			if l.Service != service || l.Release == "" || l.Event == "" || l.Subject != id ||
				l.Correlation != id || len(l.Trace) != 32 || (l.Causation == "") != root {
				t.Errorf("a line of %s lacks a field: %+v", service, l)
			}
		}
	}
	if n := len(logs["shipping"].with(parked)); n < 3 {
		t.Errorf("the id of the parked event finds %d lines", n)
	}
}
