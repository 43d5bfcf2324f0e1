package consumer_test

import (
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// A participant that could not work, a deadline and an answer that nothing handles, are refused
// before the service connects.
func TestParticipantThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	type row struct {
		ID string `db:"id"`
	}
	type good struct {
		Rows consumer.Rows[string, row] `table:"notes" key:"id"`
	}
	type withoutTags struct{ Rows consumer.Rows[string, row] }
	type withoutKey struct {
		Rows consumer.Rows[string, row] `table:"notes" key:"note_id"`
	}
	for want, h := range map[string]consumer.Handler{
		"the participant hotel is a handler of inn": consumer.Participant[good]{Name: "hotel",
			Locks: func(*good, events.Event) {}}.Handler(),
		"Locks is nil": consumer.Participant[good]{Name: "inn"}.Handler(),
		"is not a Set with the tags": consumer.Participant[withoutTags]{Name: "inn",
			Locks: func(*withoutTags, events.Event) {}}.Handler(),
		`is tagged db:"note_id"`: consumer.Participant[withoutKey]{Name: "inn",
			Locks: func(*withoutKey, events.Event) {}}.Handler(),
	} {
		c := &consumer.Consumer{Name: "inn", Handlers: []consumer.Handler{h}}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	c := &consumer.Consumer{Name: "inn", Topology: topology.Topology{Services: []topology.Service{{
		Name: "inn", Commands: []topology.Command{
			{Does: "wait", Type: "inn.expire", After: time.Minute}, {Does: "note", Type: "inn.asked"}},
		Calls: []topology.Call{{Does: "inquire", Type: "inn.inquire", Answers: []string{"inn.asked"}}},
	}}}}
	err := c.Validate()
	for _, want := range []string{"no handler for its deadline inn.expire",
		"no handler for inn.asked, an answer of its call inn.inquire"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
