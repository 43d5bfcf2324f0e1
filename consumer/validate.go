package consumer

import (
	"errors"
	"fmt"
	"slices"

	"github.com/quadrille-go/quadrille/topology"
)

// Validate returns all faults of the fields of a consumer, which would panic, or park events, once
// it runs: bounds and options of handlers, a type that two handlers handle, a participant
// whose fields or name are wrong, and what the service's topology says it handles, calls or
// schedules and no handler does.
func (c Consumer) Validate() error {
	errs := []error{c.Bounds.validate()}
	if slices.ContainsFunc(c.Middleware, func(m Middleware) bool { return m == nil }) {
		errs = append(errs, errNoMiddleware)
	}
	retry := c.Bounds.orDefaults().Retry
	handlers := map[string]Handler{}
	for _, h := range c.Handlers {
		if err := errors.Join(h.validate(retry), h.fault); err != nil {
			errs = append(errs, fmt.Errorf("the handler of %q: %w", h.Types(), err))
		}
		if h.service != "" && h.service != c.Name {
			errs = append(errs,
				fmt.Errorf("the participant %s is a handler of %s: the names must be the same",
					h.service, c.Name))
		}
		for _, eventType := range h.Types() {
			if _, twice := handlers[eventType]; twice {
				errs = append(errs, fmt.Errorf("%s has two handlers for %s: make it one", c.Name, eventType))
			}
			handlers[eventType] = h
		}
	}
	me, _ := c.Topology.Service(c.Name)
	for _, eventType := range me.Handles() {
		if _, ok := handlers[eventType]; !ok {
			errs = append(errs, fmt.Errorf("%s has no handler for %s, which its topology says it handles",
				c.Name, eventType))
		}
	}
	return errors.Join(append(errs, c.validateCalls(me, handlers))...)
}

// validateCalls compares the calls of the topology with the Call handlers.
func (c Consumer) validateCalls(me topology.Service, handlers map[string]Handler) error {
	var errs []error
	for _, call := range me.Calls {
		if handlers[call.Type].call == nil {
			errs = append(errs, fmt.Errorf("%s has no Call handler for %s, which its topology says it calls",
				c.Name, call.Type))
		}
		for _, answer := range call.Answers {
			if _, ok := handlers[answer]; !ok {
				errs = append(errs, fmt.Errorf("%s has no handler for %s, an answer of its call %s", c.Name,
					answer,
					call.Type))
			}
		}
	}
	for _, command := range me.Commands {
		if handlers[command.Type].call != nil {
			errs = append(errs,
				fmt.Errorf("the handler of the command %s is a Call: a command is not called",
					command.Type))
		}
		if _, ok := handlers[command.Type]; !ok && command.After > 0 {
			errs = append(errs, fmt.Errorf("%s has no handler for its deadline %s", c.Name, command.Type))
		}
	}
	return errors.Join(errs...)
}
