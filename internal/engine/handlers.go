package engine

import (
	"fmt"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/topology"
)

// handlers are what a service does about each type. They do not change.
type handlers struct {
	topology  topology.Topology
	service   topology.Service // this one in it
	of        map[string]*Handler
	calls     []string // the types whose handler makes an outside call
	reactions []string // the others
	catalogue events.Catalogue
	bounds    Bounds
}

// newHandlers panics if two handlers are for one type, which is a mistake in the program.
func newHandlers(s Service) *handlers {
	service, _ := s.Topology.Service(s.Name)
	service.Name = s.Name
	hs := &handlers{topology: s.Topology, service: service, of: map[string]*Handler{},
		catalogue: events.NewCatalogue(), bounds: s.Bounds}
	for _, h := range s.Handlers {
		for _, sample := range h.Samples {
			eventType := sample.EventType()
			if hs.of[eventType] != nil {
				panic(fmt.Sprintf("consumer: %s has two handlers for %s", service.Name, eventType))
			}
			hs.of[eventType] = &h
			if h.Call != nil {
				hs.calls = append(hs.calls, eventType)
			} else {
				hs.reactions = append(hs.reactions, eventType)
			}
		}
		hs.catalogue = hs.catalogue.With(h.Samples...)
	}
	return hs
}

// isCall reports whether the handler of a type makes an outside call.
func (hs *handlers) isCall(eventType string) bool {
	h := hs.of[eventType]
	return h != nil && h.Call != nil
}

// reacts reports whether events of a type are handled in a transaction.
func (hs *handlers) reacts(eventType string) bool {
	h := hs.of[eventType]
	return h != nil && h.Call == nil
}

// consumes reports whether the service has a queue.
func (hs *handlers) consumes() bool { return len(hs.service.Reacts) > 0 }

// waitsAs returns what an event waits for that is not handled in its lane.
func (hs *handlers) waitsAs(eventType string) inbox.Kind {
	if hs.isCall(eventType) {
		return inbox.Call
	}
	return inbox.Unknown
}

// retryOf returns the policy for a type.
func (hs *handlers) retryOf(eventType string) Retry {
	if h := hs.of[eventType]; h != nil {
		return h.Retry
	}
	return hs.bounds.Retry
}

// callTimeout returns the bound of a call.
func (hs *handlers) callTimeout(callType string) time.Duration {
	if h := hs.of[callType]; h != nil && h.Timeout > 0 {
		return h.Timeout
	}
	return hs.bounds.CallTimeout
}

// concurrency returns how many transactions, or calls, of a type may run at a time; 0: any number.
func (hs *handlers) concurrency(eventType string) int {
	if h := hs.of[eventType]; h != nil {
		return h.Concurrency
	}
	return 0
}

// laneOf returns the lane of a delivery: by its subject, among as many lanes as its handler may
// use.
func (hs *handlers) laneOf(hash uint64, eventType string) uint64 {
	lanes := hs.bounds.Lanes
	if own := hs.concurrency(eventType); own > 0 {
		lanes = min(lanes, own)
	}
	return hash % uint64(lanes)
}
