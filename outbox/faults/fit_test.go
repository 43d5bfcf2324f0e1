package faults_test

import (
	"errors"
	"testing"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// A rebase of a long history may take longer than a silent session keeps the lead, and longer than
// another replica waits in Fit. The lead must not change meanwhile.
func TestFitOfALongHistoryKeepsTheLead(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.AppendNotes("a", 1, 2)
	s.Exec(`UPDATE outbox_cursor SET system = 'another'`)
	s.Exec(`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_sleep(6); RETURN NEW; END'`)
	s.Exec(`CREATE TRIGGER slow BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION slow()`)
	fitted, other := make(chan error, 1), make(chan error, 1)
	go func() { fitted <- outbox.Fit(t.Context(), s.DB) }()
	s.WaitFor("the first Fit updates the history", func() bool {
		return s.Count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND state = 'active' AND query LIKE 'UPDATE outbox SET txid%'`) > 0
	})
	db := outboxtest.OpenDB(t, s.Database)
	go func() {
		err := outbox.Fit(t.Context(), db)
		// Its patience may end before the first Fit does.
		for errors.Is(err, pg.ErrSuperseded) {
			err = outbox.Fit(t.Context(), db)
		}
		other <- err
	}()
	if err := <-fitted; err != nil {
		t.Error(err)
	}
	if err := <-other; err != nil {
		t.Error(err)
	}
	if s.Count(`SELECT count(*) FROM outbox_cursor WHERE system = 'another'`) != 0 {
		t.Error("the cursor does not fit")
	}
}
