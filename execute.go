package quadrille

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// Tx runs f in a transaction of the service's database, and hurries the relay and the outside calls
// when it has committed. It runs f again, up to ten times, when another transaction
// was first: f must be repeatable. What f publishes happens if, and only if, Tx returns nil, or
// pg.ErrUnknownOutcome and the commit arrived. The context that f gets is the one to pass on.
func (s *Service) Tx(ctx context.Context,
	f func(ctx context.Context, tx *sqlx.Tx) error) error {
	p, err := s.parts(ctx)
	if err != nil {
		return err
	}
	return p.consumer.Tx(ctx, f)
}

// Publish puts events into the outbox in tx: they are published if, and only if, it commits. In a
// handler they are caused by the event that is handled.
func (s *Service) Publish(ctx context.Context, tx *sqlx.Tx, payloads ...events.Payload) error {
	return s.Do(ctx, tx, consumer.Publish(payloads...))
}

// Do writes effects in tx, as Publish does: events, deadlines and requests of outside calls.
func (s *Service) Do(ctx context.Context, tx *sqlx.Tx, e consumer.Effects) error {
	p, err := s.parts(ctx)
	if err != nil {
		return err
	}
	return consumer.Execute(ctx, p.consumer, tx, e)
}

// Execute runs commands of a participant: in one transaction it locks and loads the rows that they
// name, runs the reactions, saves what has changed, and publishes, schedules and requests what they
// return. It returns the state after the commands. When a reaction refuses, the error is a
// *consumer.Refusal and nothing has happened.
//
// In a context that Tx has passed to its function, or that a handler has got, Execute joins that
// transaction; then nothing happens unless it commits, and it does not commit after an error of
// Execute other than a refusal.
func Execute[S any](ctx context.Context, s *Service, p consumer.Participant[S],
	commands ...events.Payload) (state *S, err error) {
	err = s.join(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		batch := make([]events.Event, len(commands))
		cause := consumer.CauseOf(ctx)
		for i, c := range commands {
			batch[i] = events.Command(c, time.Time{})
			if cause.Data != nil { // in a handler
				batch[i].CorrelationID, batch[i].TraceParent = cause.CorrelationID, cause.TraceParent
			}
		}
		state, _, err = apply(ctx, s, tx, p, batch)
		return err
	})
	if err != nil {
		return nil, err
	}
	return state, nil
}

// Apply is Execute for events instead of commands: for tests, and for events that have not come
// through the broker. It does not deduplicate them. An event without a time gets the present one.
// It also returns the effects that it has executed.
func Apply[S any](ctx context.Context, s *Service, p consumer.Participant[S],
	batch ...events.Event) (state *S, results []consumer.Result, err error) {
	err = s.join(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		state, results, err = apply(ctx, s, tx, p, batch)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return state, results, nil
}

func apply[S any](ctx context.Context, s *Service, tx *sqlx.Tx, p consumer.Participant[S],
	batch []events.Event) (*S, []consumer.Result, error) {
	parts, err := s.parts(ctx)
	if err != nil {
		return nil, nil, err
	}
	if batch, err = dated(ctx, tx, batch); err != nil {
		return nil, nil, err
	}
	return consumer.Apply(ctx, parts.consumer, tx, p, batch...)
}

// join runs f in the transaction of ctx if there is one, and in one of its own otherwise.
func (s *Service) join(ctx context.Context,
	f func(ctx context.Context, tx *sqlx.Tx) error) error {
	p, err := s.parts(ctx)
	if err != nil {
		return err
	}
	return p.consumer.Join(ctx, f)
}

// dated gives the events of a batch without a time that of the database: deadlines run by its
// clock, and so must the time of a command that sets one.
func dated(ctx context.Context, tx *sqlx.Tx, batch []events.Event) ([]events.Event, error) {
	if !slices.ContainsFunc(batch, func(e events.Event) bool { return e.Time.IsZero() }) {
		return batch, nil
	}
	var now time.Time
	if err := tx.GetContext(ctx, &now, `SELECT clock_timestamp()`); err != nil {
		return nil, fmt.Errorf("read the time of a command: %w", err)
	}
	batch = slices.Clone(batch)
	for i, e := range batch {
		if e.Time.IsZero() {
			batch[i].Time = now.UTC()
		}
	}
	return batch, nil
}
