package consumer

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/engine"
)

// Participant is a service's part in a choreography as pure functions over a State: a struct whose
// fields are Tables. The order of the fields is the order in which rows are locked, everywhere.
type Participant[S any] struct {
	Name string // of the service
	// Locks locks the rows that an event will touch: s.Payments.Lock(id). It is repeated until it
	// locks nothing new, so that a row may tell which others are needed. It sees the rows as they were
	// before the batch.
	Locks func(s *S, e events.Event)
	React []Reaction[S]
}

// Reaction is what a participant does about events of one type.
type Reaction[S any] struct {
	sample events.Payload
	react  func(*S, events.Event) (Effects, error)
}

// On makes a reaction of a function. The function is pure: it knows its arguments and nothing else,
// and the current time is e.Time. A panic fails the event and nothing else. Its error is a refusal,
// see Refuse, or a fault; in both cases the state must be discarded.
func On[S any, T events.Payload](
	react func(s *S, e events.Of[T]) (Effects, error)) Reaction[S] {
	var sample T
	return Reaction[S]{sample: sample, react: func(s *S, e events.Event) (Effects, error) {
		typed, _ := events.As[T](e) // dispatch is by type
		return react(s, typed)
	}}
}

// samples returns a payload of each type that the participant reacts to.
func (p Participant[S]) samples() []events.Payload {
	samples := make([]events.Payload, len(p.React))
	for i, r := range p.React {
		samples[i] = r.sample
	}
	return samples
}

// apply is Apply without the effects, which it returns.
func (p Participant[S]) apply(ctx context.Context, tx *sqlx.Tx, batch ...events.Event) (*S,
	[]Result, error) {
	s, tables := p.state()
	results, err := p.run(ctx, s, tables, batch, func(t Table) error { return t.Load(ctx, tx) })
	if err != nil {
		return nil, nil, err
	}
	for _, t := range tables {
		if err := t.Save(ctx, tx); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return s, results, nil
}

// ApplyTo reacts to a batch on a memory instead of a database, for tests: nothing but the memory
// changes. It returns the state after the batch and the effects of each event. On an error the
// memory is as it was.
func (p Participant[S]) ApplyTo(m Memory, batch ...events.Event) (*S, []Result, error) {
	s, tables := p.state()
	results, err := p.run(context.Background(), s, tables, batch,
		func(t Table) error { return t.LoadFrom(m) })
	if err != nil {
		return nil, nil, err
	}
	for _, t := range tables {
		if _, err := t.SaveTo(m); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return s, results, nil
}

// state makes an empty state and lists its tables in field order. A State that is not made of
// tables is a mistake in the program and panics; validate returns it as an error.
func (p Participant[S]) state() (*S, []Table) {
	s, tables, err := p.newState()
	if err != nil {
		panic(err.Error())
	}
	return s, tables
}

func (p Participant[S]) newState() (*S, []Table, error) {
	s := new(S)
	v := reflect.ValueOf(s).Elem()
	tables := make([]Table, v.NumField())
	for i := range v.NumField() {
		field := v.Type().Field(i)
		set, ok := reflect.TypeAssert[Set](v.Field(i).Addr())
		if !ok || field.Tag.Get("table") == "" || field.Tag.Get("key") == "" {
			return nil, nil, fmt.Errorf("consumer: field %s of %s is not a Set with the tags table and key",
				field.Name, v.Type())
		}
		tables[i] = set.Table(field.Tag.Get("table"), field.Tag.Get("key"))
	}
	return s, tables, nil
}

// validate returns all faults of the participant's fields.
func (p Participant[S]) validate() error {
	var errs []error
	if p.Locks == nil {
		errs = append(errs, errors.New("Locks is nil: it must lock the rows that an event will touch"))
	}
	_, tables, err := p.newState()
	errs = append(errs, err)
	for _, t := range tables {
		if rows, ok := t.(interface{ validate() error }); ok {
			errs = append(errs, rows.validate())
		}
	}
	return errors.Join(errs...)
}

// maxRounds bounds how often Locks is repeated: a row may name another, which names another.
const maxRounds = 100

// run loads and reacts. A table is loaded only when the earlier ones need nothing more, so that
// locks are taken in the order of the fields. A row of a later table may name rows of an earlier
// one; then the order of the fields is not kept, and PostgreSQL ends a deadlock, which is retried.
func (p Participant[S]) run(ctx context.Context, s *S, tables []Table, batch []events.Event,
	load func(Table) error) ([]Result, error) {
	rounds := 0
	for wanting := true; wanting; rounds++ {
		if rounds > maxRounds {
			return nil, fmt.Errorf("%s: Locks locks ever more rows, %d times so far", p.Name, rounds)
		}
		for _, e := range batch {
			if err := p.locks(ctx, s, e); err != nil {
				return nil, err
			}
		}
		wanting = false
		for _, t := range tables {
			if t.NeedsLoad() {
				if err := load(t); err != nil {
					return nil, fmt.Errorf("%s: %w", p.Name, err)
				}
				wanting = true
				break
			}
		}
	}
	results := make([]Result, len(batch))
	for i, e := range batch {
		var err error
		if results[i], err = p.react(ctx, s, e); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// locks locks what one event will touch; a panic becomes an error.
func (p Participant[S]) locks(ctx context.Context, s *S, e events.Event) error {
	return engine.Safely(ctx, e, func() error {
		p.Locks(s, e)
		return nil
	})
}

// react runs the reaction to one event; a panic becomes an error.
func (p Participant[S]) react(ctx context.Context, s *S, e events.Event) (result Result,
	err error) {
	for _, r := range p.React {
		if r.sample.EventType() != e.Data.EventType() {
			continue
		}
		err = engine.Safely(ctx, e, func() error {
			return engine.AroundPure(ctx, e, func(_ context.Context, e events.Event) (err error) {
				result.Cause = e
				result.Effects, err = r.react(s, e)
				return err
			})
		})
		return result, err
	}
	return Result{}, fmt.Errorf("%s has no reaction to %s", p.Name, e.Data.EventType())
}
