package quadrilleprom_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/quadrilleprom"
	"github.com/quadrille-go/quadrille/resilience"
)

type joined struct{ Name string }

func (joined) EventType() string { return "user.joined" }
func (j joined) Subject() string { return j.Name }

// One registry has the service's counters, its breakers, and the durations of its handlers.
func TestCollectorHasWhatAServiceKnows(t *testing.T) {
	t.Parallel()
	s, err := quadrille.New(quadrille.Config{Name: "members", AMQP: "amqp://127.0.0.1:1/",
		Database:   "postgres://127.0.0.1:1/none?sslmode=disable",
		Components: []quadrille.Component{resilience.Breakers{{Name: "provider"}}}})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(quadrilleprom.Collector(s))
	handle := quadrilleprom.Durations(registry)(func(context.Context, events.Event) error {
		return errors.New("no")
	})
	if err := handle(t.Context(), events.Event{Data: joined{"ada"}}); err == nil {
		t.Error("the error of the handler is lost")
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, f := range families {
		found[f.GetName()] = f.String()
	}
	for name, want := range map[string]string{"quadrille_outbox_published_total": "",
		"quadrille_breaker_open": "provider", "quadrille_handler_seconds": "user.joined"} {
		if text, ok := found[name]; !ok || !strings.Contains(text, want) {
			t.Errorf("%s: %s", name, text)
		}
	}
}
