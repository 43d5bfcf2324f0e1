package check

import (
	"fmt"
	"slices"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// expandCalls visits the states after each call that is requested: it is made and its answer takes
// effect, or the answer is lost and the call will be made again.
func (x *explorer) expandCalls(r *Report, at int, s state) (called bool, err error) {
	for i, m := range s.requests {
		called = true
		if i > 0 && s.requests[i-1] == m {
			continue // the same request twice: making either call is the same move
		}
		to := m >> 16
		memory, answer, err := x.outside(to, s.memories[to], m)
		if err != nil {
			return false, err
		}
		after := s
		after.memories = slices.Clone(s.memories)
		after.memories[to] = memory
		if s.doubles > 0 {
			again := after
			again.doubles--
			x.visit(again, at, move{m, " (call, its answer lost)"}, false)
		}
		after.requests = slices.Delete(slices.Clone(s.requests), i, i+1)
		if answer == nil {
			x.visit(after, at, move{m, " (call)"}, true)
			continue
		}
		if err := x.answer(r, at, after, m, answer); err != nil {
			return false, err
		}
	}
	return called, nil
}

// answer visits the state after an answer, by the rules of production: one to which the service has
// no reaction is published, and one that the topology does not declare is a violation.
func (x *explorer) answer(r *Report, at int, after state, request uint32,
	answer events.Payload) error {
	to := request >> 16
	reactor, call := x.model.Reactors[to], x.messages[request&0xffff].EventType()
	me, _ := x.model.Topology.Service(reactor.Name)
	message, err := x.message(int(to), answer)
	if err != nil {
		return err
	}
	m := move{message, " (answer)"}
	published := reactor.Types != nil && !slices.Contains(reactor.Types, answer.EventType())
	var fault string
	switch {
	case published:
		fault = x.undeclared(reactor.Name, call, consumer.Publish(answer))
	case !me.MayAnswer(call, answer.EventType()):
		fault = fmt.Sprintf("%s answers %s of %s, which its topology does not declare",
			answer.EventType(), call, reactor.Name)
	default:
		return x.deliver(r, at, after, m, true)
	}
	if fault != "" {
		r.violated(fault, func() []string { return append(x.way(at), x.report(m)) })
	} else {
		for _, subscriber := range x.model.Topology.Subscribers(answer.EventType()) {
			n, err := x.message(x.index[subscriber], answer)
			if err != nil {
				return err
			}
			after.inFlight = append(slices.Clone(after.inFlight), n)
		}
		slices.Sort(after.inFlight)
	}
	x.visit(after, at, m, true)
	return nil
}

// outside makes a call on a copy of the service's memory.
func (x *explorer) outside(to, memory, message uint32) (after uint32, answer events.Payload,
	err error) {
	request := x.messages[message&0xffff]
	make, ok := x.model.Outside[request.EventType()]
	if !ok {
		return 0, nil, fmt.Errorf("the field Outside of the model does not answer the call %s",
			request.EventType())
	}
	m := x.memories[memory].Clone()
	if answer, err = make(m, request); err != nil {
		return 0, nil, fmt.Errorf("call %s: %w", request.EventType(), err)
	}
	return x.remember(m), answer, nil
}

// deliver visits the state after a service has reacted to a message. What production would refuse
// is a violation, and the message has no effect.
func (x *explorer) deliver(r *Report, at int, s state, m move, must bool) error {
	to := m.message >> 16
	done, err := x.react(to, s.memories[to], m.message)
	if err != nil {
		return err
	}
	if done.fault != "" {
		r.violated(done.fault, func() []string { return append(x.way(at), x.report(m)) })
	}
	s.memories = slices.Clone(s.memories)
	s.memories[to] = done.memory
	s.inFlight = slices.Concat(s.inFlight, done.inFlight)
	s.due = slices.Concat(s.due, done.due)
	s.requests = slices.Concat(s.requests, done.requests)
	slices.Sort(s.inFlight)
	slices.Sort(s.requests)
	slices.Sort(s.due)
	s.due = slices.Compact(s.due) // a deadline that is set again is moved
	x.visit(s, at, m, must)
	return nil
}

// report describes a move.
func (x *explorer) report(m move) string {
	payload := x.messages[m.message&0xffff]
	return payload.EventType() + " of " + payload.Subject() + " → " +
		x.model.Reactors[m.message>>16].Name + m.how
}

// react runs a reaction, once for each memory and message.
func (x *explorer) react(to, memory, message uint32) (step, error) {
	key := [3]uint32{to, memory, message}
	if done, ok := x.steps[key]; ok {
		return done, nil
	}
	payload := x.messages[message&0xffff]
	after := x.memories[memory].Clone()
	reactor := x.model.Reactors[to]
	effects, err := reactor.React(after, events.Event{ID: "check", Time: now, Data: payload})
	if err != nil {
		return step{}, fmt.Errorf("%s: %s: %w", reactor.Name, payload.EventType(), err)
	}
	if fault := x.undeclared(reactor.Name, payload.EventType(), effects); fault != "" {
		done := step{memory: memory, fault: fault}
		x.steps[key] = done
		return done, nil
	}
	done := step{memory: x.remember(after)}
	add := func(list *[]uint32, to int, p events.Payload) error {
		m, err := x.message(to, p)
		*list = append(*list, m)
		return err
	}
	for _, d := range effects.Schedule {
		if err := add(&done.due, int(to), d.Payload); err != nil {
			return step{}, err
		}
	}
	for _, p := range effects.Request {
		if err := add(&done.requests, int(to), p); err != nil {
			return step{}, err
		}
	}
	for _, p := range effects.Publish {
		for _, subscriber := range x.model.Topology.Subscribers(p.EventType()) {
			if err := add(&done.inFlight, x.index[subscriber], p); err != nil {
				return step{}, err
			}
		}
	}
	x.steps[key] = done
	return done, nil
}

// undeclared names an effect that the topology does not declare, by the rules of production.
func (x *explorer) undeclared(service, cause string, effects consumer.Effects) string {
	me, _ := x.model.Topology.Service(service)
	for _, d := range effects.Schedule {
		if _, named := me.Command(d.Payload.EventType()); !named {
			return fmt.Sprintf("%s sets the deadline %s on %s, and no command of its topology has this "+
				"type", service, d.Payload.EventType(), cause)
		}
	}
	for _, p := range effects.Request {
		if !me.MayRequest(cause, p.EventType()) {
			return fmt.Sprintf("%s requests %s on %s, which its topology does not declare", service,
				p.EventType(), cause)
		}
	}
	for _, p := range effects.Publish {
		if !me.MayPublish(cause, p.EventType()) {
			return fmt.Sprintf("%s publishes %s on %s, which its topology does not declare", service,
				p.EventType(), cause)
		}
	}
	return ""
}
