package outbox

import (
	"context"
	"errors"

	"github.com/quadrille-go/quadrille/internal/logfields"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/tracing"
)

// publishRows publishes rows of the source, and holds those that must not be published now.
func (t *term) publishRows(ctx context.Context, rows []row) (err error) {
	t.relay.limits.markUnfit(rows)
	t.heldAggregates = map[string]bool{}
	var held map[int64]bool
	if t.heldCount > 0 {
		if held, t.heldAggregates, err = findHeld(ctx, t.conn, rows); err != nil {
			return err
		}
	}
	return t.send(ctx, t.admit(rows, held))
}

// send publishes the attempts that have no result, and puts all of them into the queue.
func (t *term) send(ctx context.Context, attempts []attempt) error {
	t.unsent = attempts
	for len(t.unsent) > 0 {
		n, alone := t.run()
		if alone {
			if err := t.settle(ctx, len(t.queue)); err != nil {
				return err
			}
		}
		if err := t.publish(ctx, t.next(n)); err != nil {
			return err
		}
		if alone {
			if err := t.settle(ctx, len(t.queue)); err != nil {
				return err
			}
		}
	}
	return nil
}

// publish publishes a run of attempts with one write, and puts them into the queue.
func (t *term) publish(ctx context.Context, attempts []attempt) error {
	messages := make([]rabbit.Message, 0, len(attempts))
	for i := range attempts {
		if a := &attempts[i]; a.result == unknown {
			messages = append(messages, t.message(a))
		}
	}
	confirms, err := t.publisher.Publish(messages)
	for _, a := range attempts {
		if a.result == unknown && err == nil {
			a.confirm, confirms = confirms[0], confirms[1:]
		}
		t.queue = append(t.queue, a)
	}
	if err != nil {
		return t.sessionLost(ctx, err)
	}
	return nil
}

// message converts an attempt into a message. The sequence of a message is the row's seq, which
// stays the same when the row is published again. The row has the trace context of what caused the
// event, so a row that is published again belongs to the same trace; the message has that of the
// span of this publication.
func (t *term) message(a *attempt) rabbit.Message {
	record := a.record
	record.Sequence = a.seq
	if t.relay.Tracer != nil {
		span := t.relay.Tracer.Begin(tracing.Step{Operation: tracing.Send, Event: record,
			Exchange: t.relay.Exchange})
		record.TraceParent, a.span = span.TraceParent, span.End
	}
	return rabbit.Message{
		Exchange: t.relay.Exchange, Key: record.Type,
		Mandatory:  true, // the broker returns unroutable messages; await decides
		Publishing: rabbit.Publishing(record),
	}
}

// settle awaits the results of the n oldest attempts, and writes what they change.
func (t *term) settle(ctx context.Context, n int) error {
	for i := range min(n, len(t.queue)) {
		a := &t.queue[i]
		if err := t.await(ctx, a); err != nil {
			return err
		}
		if a.result == unknown {
			err := t.publisher.Err()
			if err == nil {
				err = errors.New("the broker session ended before all published events were confirmed")
			}
			return t.sessionLost(ctx, err)
		}
	}
	return t.apply(ctx, t.state.settle())
}

// await awaits the result of an attempt. It stays unknown when the session ended first. A row that
// the broker returned counts as confirmed unless its type is mandatory.
func (t *term) await(ctx context.Context, a *attempt) error {
	if a.result != unknown || a.confirm == nil {
		return nil
	}
	outcome, why, err := t.publisher.Wait(ctx, a.confirm)
	if err != nil {
		return err
	}
	switch outcome {
	case rabbit.Unknown:
		return nil
	case rabbit.Confirmed:
		a.result = confirmed
		t.relay.attempts.confirmed.Add(1)
		t.relay.latency.Observe(a.confirm.Age())
	case rabbit.Refused:
		a.result = refused
		t.relay.attempts.refused.Add(1)
	case rabbit.Unsendable:
		a.result = quarantined
		t.relay.attempts.unsendable.Add(1)
	case rabbit.Returned:
		a.result = unroutable
		if !t.relay.mandatory(a.record.Type) {
			t.relay.countUnrouted(a.record.Type)
			a.result, why = confirmed, nil
		} else {
			t.relay.attempts.unroutable.Add(1)
		}
	}
	if why != nil {
		a.reason = why.Error()
	}
	a.endSpan(nil)
	t.relay.logAttempt(a)
	return nil
}

// logAttempt logs the result of an attempt. It costs nothing while the level is higher.
func (r *Relay) logAttempt(a *attempt) {
	line := r.Log.Debug()
	if line == nil {
		return
	}
	line = line.EmbedObject(logfields.Of(a.record)).Int64("seq", a.seq)
	if a.result == confirmed {
		line.Bool("again", a.origin != ofSource).Msg("event published")
		return
	}
	line.Str("reason", a.reason).Msg("event not published")
}

// sessionLost settles what can be settled when the session ended with attempts in flight: the
// broker's reason may tell which row ended the session. It returns why, which ends the term.
func (t *term) sessionLost(ctx context.Context, why error) error {
	for i := range t.queue {
		if err := t.await(ctx, &t.queue[i]); err != nil {
			return err
		}
		if t.queue[i].result == unknown {
			t.relay.attempts.lost.Add(1)
		}
	}
	code := rabbit.ServerCode(why)
	if t.relay.limits.learn(why) {
		code = 0 // markUnfit finds such rows from now on, so that no row need be isolated
	}
	t.lost(code, why.Error())
	endSpans(t.queue, why)
	if err := t.apply(ctx, t.state.settle()); err != nil {
		return errors.Join(why, err)
	}
	return why
}
