package webtest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// Event returns an event with the payload, as if a service had published it.
func Event(p events.Payload) events.Event {
	return events.Cause(events.Event{}, "/test", time.Now(), p)
}

// React applies payloads in one transaction, again if it conflicts with another one, as the
// consumer does with a batch. It returns the published events and the requested calls.
func React[S any](ctx context.Context, s *Service, p consumer.Participant[S],
	payloads ...events.Payload) ([]events.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, quadrilletest.Timeout)
	defer cancel()
	batch := make([]events.Event, len(payloads))
	for i, payload := range payloads {
		batch[i] = Event(payload)
	}
	_, results, err := quadrille.Apply(ctx, s.Kit, p, batch...)
	var all []events.Event
	for _, r := range results {
		for _, payload := range append(r.Effects.Publish, r.Effects.Request...) {
			all = append(all, events.Cause(r.Cause, "/"+s.Kit.Name(), time.Now(), payload))
		}
	}
	return all, err
}

// Together runs f n times at once and reports its errors.
func Together(t testing.TB, n int, f func(i int) error) {
	t.Helper()
	var running sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		running.Go(func() {
			<-start
			if err := f(i); err != nil {
				t.Errorf("%d of %d at once: %v", i, n, err)
			}
		})
	}
	close(start)
	running.Wait()
}

// Count counts the payloads by type.
func Count(published []events.Payload) map[string]int {
	count := map[string]int{}
	for _, p := range published {
		count[p.EventType()]++
	}
	return count
}

// Permute calls visit with every order of the events, each on a copy of the memory, and fails the
// test at the first error. Equal events are interchangeable. It returns the number of orders.
func Permute(t testing.TB, reactor consumer.Reactor, begin consumer.Memory, list []events.Payload,
	visit func(m consumer.Memory, published []events.Payload) error,
) int {
	t.Helper()
	names := make([]string, len(list))
	for i, p := range list {
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		names[i] = p.EventType() + string(data)
	}
	used := make([]bool, len(list))
	orders := 0
	var walk func(m consumer.Memory, published []events.Payload, way []string)
	walk = func(m consumer.Memory, published []events.Payload, way []string) {
		if len(way) == len(list) {
			orders++
			if err := visit(m, published); err != nil {
				t.Fatalf("after %q: %v\n%s", way, err, m)
			}
			return
		}
		result := map[string]bool{}
		for i, p := range list {
			if used[i] || result[names[i]] {
				continue
			}
			result[names[i]], used[i] = true, true
			next := m.Clone()
			more, err := reactor.React(next, events.Event{ID: fmt.Sprint(i), Time: time.Unix(0, 0), Data: p})
			if err != nil {
				t.Fatalf("after %q: %s: %v", way, p.EventType(), err)
			}
			walk(next, append(slices.Clip(published), append(more.Publish, more.Request...)...),
				append(slices.Clip(way), p.EventType()))
			used[i] = false
		}
	}
	walk(begin, nil, nil)
	return orders
}
