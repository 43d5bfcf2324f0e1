package quadrille_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// Raise is a command that adds to a counter. Left is in no topology.
type (
	Raise struct{ Name, Publish string }
	Left  struct{ ID string }
)

func (Raise) EventType() string { return "members.raise" }
func (r Raise) Subject() string { return r.Name }
func (Left) EventType() string  { return "user.left" }
func (l Left) Subject() string  { return l.ID }

type counter struct {
	Name string `db:"name"`
	N    int64  `db:"n"`
}

type counters struct {
	Counters consumer.Rows[string, counter] `table:"counters" key:"name"`
}

// raising refuses what has no name, and publishes on demand.
var raising = consumer.Participant[counters]{Name: "members",
	Locks: func(s *counters, e events.Event) { s.Counters.Lock(e.Data.Subject()) },
	React: []consumer.Reaction[counters]{consumer.On(func(s *counters,
		e events.Of[Raise]) (consumer.Effects, error) {
		c, _ := s.Counters.Get(e.Data.Name)
		s.Counters.Set(e.Data.Name, counter{e.Data.Name, c.N + 1})
		switch e.Data.Publish {
		case "refuse":
			return consumer.Effects{}, consumer.Refuse(consumer.Conflict, "no")
		case "undeclared":
			return consumer.Publish(Left{e.Data.Name}), nil
		}
		return consumer.Effects{}, nil
	})}}

func counting(t *testing.T, changes ...func(c *quadrille.Config)) *quadrille.Service {
	t.Helper()
	broker, _ := servertest.Vhost(t)
	tables := map[string]fs.FS{"members": fstest.MapFS{"001_members.sql": {Data: []byte(
		"-- +goose Up\nCREATE TABLE counters (name text PRIMARY KEY, n bigint NOT NULL);\n")}}}
	return members(t, database(t), broker, append([]func(c *quadrille.Config){
		func(c *quadrille.Config) { c.Migrations = tables }}, changes...)...)
}

// Commands that a handler executes belong to its transaction: they have their effect once, however
// often the handler fails.
func TestExecuteInAHandlerJoinsItsTransaction(t *testing.T) {
	t.Parallel()
	var s *quadrille.Service
	var runs atomic.Int32
	s = counting(t, func(c *quadrille.Config) {
		c.Bounds.Retry.First = time.Millisecond
		c.Handlers = []consumer.Handler{consumer.Handle(func(ctx context.Context, _ *sqlx.Tx,
			e events.Of[UserJoined]) error {
			if _, err := quadrille.Execute(ctx, s, raising, Raise{Name: e.Data.ID}); err != nil {
				return err
			}
			if runs.Add(1) < 3 {
				return errors.New("not now")
			}
			return nil
		})}
	})
	run(t, s)
	publish(t, s, UserJoined{"1", "ada@example.com"})
	quadrilletest.WaitFor(t, "it is handled", func() (bool, string) {
		return s.Stats().Consumer.Handled == 1, fmt.Sprint(s.Stats())
	})
	if n := count(t, s, "counters WHERE n = 1"); n != 1 || runs.Load() != 3 {
		t.Errorf("%d counters are right after %d runs", n, runs.Load())
	}
}

// A transaction in which commands have failed is rolled back, whatever its function makes of the
// error; a refusal has changed nothing and is an answer.
func TestTxDoesNotCommitHalfOfACommand(t *testing.T) {
	t.Parallel()
	s := counting(t)
	inTx := func(commands ...events.Payload) (tx, execute error) {
		tx = s.Tx(t.Context(), func(ctx context.Context, _ *sqlx.Tx) error {
			_, execute = quadrille.Execute(ctx, s, raising, commands...)
			return nil
		})
		return tx, execute
	}
	tx, err := inTx(Raise{Name: "a", Publish: "undeclared"})
	if err == nil || !errors.Is(tx, err) {
		t.Errorf("Tx returns %v, Execute %v", tx, err)
	}
	tx, err = inTx(Raise{Name: "a"}, Raise{Name: "b", Publish: "refuse"})
	if tx != nil || !errors.As(err, new(*consumer.Refusal)) {
		t.Errorf("Tx returns %v, Execute %v", tx, err)
	}
	if n := count(t, s, "counters"); n != 0 {
		t.Errorf("%d counters", n)
	}
	err = s.Tx(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
		_, _ = tx.ExecContext(ctx, `SELECT 1/0`)
		_, _ = quadrille.Execute(ctx, s, raising, Raise{Name: "a"})
		return nil
	})
	if err == nil || count(t, s, "counters") != 0 {
		t.Errorf("after a failed statement: %v", err)
	}
	state, err := quadrille.Execute(t.Context(), s, raising)
	if err != nil || state == nil {
		t.Errorf("no commands: %v, %v", state, err)
	}
}

// A state is returned only of commands that have committed.
func TestExecuteReturnsNoStateOfATransactionThatFailed(t *testing.T) {
	t.Parallel()
	s := counting(t)
	db, err := s.DB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db.MustExec(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RAISE EXCEPTION 'too late'; END $$`)
	db.MustExec(`CREATE CONSTRAINT TRIGGER late AFTER INSERT ON counters DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION refuse()`)
	if state, err := quadrille.Execute(t.Context(), s, raising, Raise{Name: "a"}); err == nil ||
		state != nil {
		t.Errorf("%v, %v", state, err)
	}
}
