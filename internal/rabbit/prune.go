package rabbit

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/topology"
)

// errInUse means that an object is not removed, because somebody uses it or it holds messages.
var errInUse = errors.New("it stays")

// Pruned is what Prune has removed, and what it has refused to remove, with the reasons.
type Pruned struct {
	Removed []Step `json:"removed"`
	Refused []Step `json:"refused"`
}

// Prune removes what earlier versions of a topology have declared and t does not, according to
// their markers. The topology must be applied, so that nothing is removed for one that is not
// there. A queue that holds messages or has consumers stays, an exchange that is bound stays, and
// so does the marker that lists them: a later call can remove them.
func Prune(ctx context.Context, managementURL, brokerURL string, t topology.Topology) (Pruned,
	error) {
	done := Pruned{Removed: []Step{}, Refused: []Step{}}
	l, err := inspect(ctx, managementURL, brokerURL)
	if err != nil {
		return done, fmt.Errorf("prune topology: %w", err)
	}
	p := &pruner{ctx: ctx, url: brokerURL, topology: t, listing: l, refused: map[string]bool{},
		removed: map[string]bool{}}
	defer p.close()
	if err := p.checkMarker(); err != nil {
		return done, fmt.Errorf("prune topology: %w", err)
	}
	for _, o := range l.obsolete(t) {
		step := Step{Remove, o.title(), "only " + o.marker + " declared it", ""}
		switch err := p.remove(o); {
		case errors.Is(err, errInUse):
			p.refused[o.name], p.refused["exchange "+o.marker] = true, true
			step.Reason = err.Error()
			done.Refused = append(done.Refused, step)
		case err != nil:
			return done, fmt.Errorf("prune topology: remove %s: %w", o.title(), err)
		default:
			p.removed[o.name] = true
			done.Removed = append(done.Removed, step)
		}
	}
	return done, nil
}

// pruner removes objects one by one. A refusal of the broker ends the session, so that there may be
// several.
type pruner struct {
	ctx      context.Context
	url      string
	topology topology.Topology
	listing  listing
	removed  map[string]bool // by their names
	refused  map[string]bool
	session  *Session
}

func (p *pruner) close() {
	if p.session != nil {
		p.session.Close()
	}
}

func (p *pruner) call(request func(ch *amqp.Channel) error) (err error) {
	if p.session == nil || p.session.Err() != nil {
		p.close()
		if p.session, err = Open(p.ctx, p.url, p.topology.Name+"/prune"); err != nil {
			return err
		}
	}
	s := p.session
	return s.call(func() error { return request(s.ch) })
}

// checkMarker checks that the topology is applied. It replaces a marker that was declared before
// markers had lists, since a broker cannot change its arguments; a service that looks for it
// meanwhile looks again.
func (p *pruner) checkMarker() error {
	marker := p.topology.MarkerExchange()
	for _, e := range p.listing.Exchanges {
		if e.Name != marker.Name {
			continue
		}
		if _, listed := e.Arguments[topology.DeclaresArg]; listed {
			return nil
		}
		if err := p.call(func(ch *amqp.Channel) error {
			return ch.ExchangeDelete(e.Name, false, noWait)
		}); err != nil {
			return fmt.Errorf("replace the marker %s: %w", e.Name, err)
		}
		return p.session.declareExchange(marker)
	}
	return fmt.Errorf("%w: exchange %s is missing", ErrNotApplied, marker.Name)
}

func (p *pruner) remove(o object) error {
	words := o.parts()
	switch {
	case words[0] == "binding" && p.removed["queue "+words[3]]:
		return nil // it is gone with its queue
	case words[0] == "binding":
		if p.refused["queue "+words[3]] {
			return fmt.Errorf("%w, since its queue stays", errInUse)
		}
		return p.call(func(ch *amqp.Channel) error {
			return ch.QueueUnbind(words[3], words[2], words[1], nil)
		})
	case words[0] == "queue":
		return p.removeQueue(words[1])
	case p.refused[o.name]:
		return fmt.Errorf("%w, since it lists what stays", errInUse)
	}
	err := p.call(func(ch *amqp.Channel) error {
		return ch.ExchangeDelete(words[1], true, noWait)
	})
	if ServerCode(err) == amqp.PreconditionFailed {
		return fmt.Errorf("%w, since something is bound to it", errInUse)
	}
	return err
}

// removeQueue deletes an empty queue that nobody consumes. Quorum queues know no deletion on
// condition, so it makes sure first that nothing can come: the bindings go before the last look.
func (p *pruner) removeQueue(name string) error {
	if err := p.checkIdle(name); err != nil {
		return err
	}
	for _, b := range p.listing.Bindings {
		if b.Destination != name || b.Kind != "queue" || b.Source == "" {
			continue
		}
		if err := p.call(func(ch *amqp.Channel) error {
			return ch.QueueUnbind(name, b.Key, b.Source, nil)
		}); err != nil {
			return err
		}
	}
	if err := p.checkIdle(name); err != nil {
		return err
	}
	return p.call(func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(name, false, false, noWait)
		return err
	})
}

// checkIdle returns errInUse if a queue has messages or consumers.
func (p *pruner) checkIdle(name string) error {
	return p.call(func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(name, durable, autoDelete, exclusive, noWait, nil)
		switch {
		case err != nil:
			return err
		case q.Messages > 0:
			return fmt.Errorf("%w, since it holds %d messages: handle or discard them first", errInUse,
				q.Messages)
		case q.Consumers > 0:
			return fmt.Errorf("%w, since it has %d consumers: stop the old replicas first", errInUse,
				q.Consumers)
		}
		return nil
	})
}
