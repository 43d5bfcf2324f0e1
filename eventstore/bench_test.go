package eventstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/engine"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// rowCounter is a counter that is stored as a row, for comparison with one that is stored as
// a stream.
type rowCounter struct {
	Name string `db:"name"`
	Sum  int    `db:"sum"`
}

type rowState struct {
	Counters consumer.Rows[string, rowCounter] `table:"row_counters" key:"name"`
}

var rowParticipant = consumer.Participant[rowState]{
	Name:  "counters",
	Locks: func(s *rowState, e events.Event) { s.Counters.Lock(e.Data.Subject()) },
	React: []consumer.Reaction[rowState]{consumer.On(func(s *rowState,
		e events.Of[plus]) (consumer.Effects, error) {
		c, _ := s.Counters.Get(e.Data.Name)
		s.Counters.Set(e.Data.Name, rowCounter{e.Data.Name, c.Sum + e.Data.N})
		return consumer.Effects{}, nil
	})},
}

// BenchmarkApply applies batches of a hundred commands to a hundred aggregates, which are stored as
// streams and, alternately, as rows. Then it measures how long a fold of the streams takes.
func BenchmarkApply(b *testing.B) {
	const batches, size = 100, 100
	s := newStore(b)
	s.exec(`CREATE TABLE row_counters (name text PRIMARY KEY, sum bigint NOT NULL)`)
	ctx := pg.WithStatements(b.Context(), pg.NewStatements(s.DB))
	runner := engine.New(engine.Config{Service: engine.Service{Name: participant.Name}})
	var streams, rows, folds time.Duration
	run := func(apply func(tx *sqlx.Tx, batch []events.Event) error) time.Duration {
		began := time.Now()
		for range batches {
			batch := make([]events.Event, size)
			for i := range batch {
				batch[i] = event(plus{fmt.Sprint("counter", i), 0})
			}
			must(b, pg.InTx(ctx, s.DB, func(tx *sqlx.Tx) error { return apply(tx, batch) }))
		}
		return time.Since(began)
	}
	names := make([]string, size)
	for i := range names {
		names[i] = streamOf(fmt.Sprint("counter", i))
	}
	for b.Loop() {
		streams += run(func(tx *sqlx.Tx, batch []events.Event) error {
			_, _, err := consumer.Apply(ctx, runner, tx, participant, batch...)
			return err
		})
		rows += run(func(tx *sqlx.Tx, batch []events.Event) error {
			_, _, err := consumer.Apply(ctx, runner, tx, rowParticipant, batch...)
			return err
		})
		began := time.Now()
		_, err := eventstore.Fold[counter](b.Context(), s, names...)
		must(b, err)
		folds += time.Since(began)
	}
	n := float64(batches * size * b.N)
	b.ReportMetric(n/streams.Seconds(), "streams/s")
	b.ReportMetric(n/rows.Seconds(), "rows/s")
	b.ReportMetric(float64(folds.Microseconds())/float64(size*b.N), "µs/fold")
}
