package consumer_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

// remarked is what the service under test knows as order.noted: its second major version, in which
// the text is called words.
type remarked struct {
	Order string `json:"order"`
	Words string `json:"words"`
}

func (remarked) EventType() string { return consumertest.Noted{}.EventType() }
func (r remarked) Subject() string { return r.Order }
func (remarked) Major() int        { return 2 }

func (remarked) Upcast(_ int, data []byte) ([]byte, error) {
	return []byte(strings.Replace(string(data), `"text":`, `"words":`, 1)), nil
}

// An event of an older major is read through its upcaster when it comes, and again from the bytes
// that are kept when it is tried once more.
func TestOlderMajorIsUpcastOnArrivalAndOnRedrive(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	var repaired atomic.Bool
	_, stop := w.Bank(consumer.Handle(func(ctx context.Context, tx *sqlx.Tx,
		e events.Of[remarked]) error {
		if e.Data.Words == "later" && !repaired.Load() {
			return consumer.Permanent(errors.New("not yet"))
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO notes (consumer, event_id, text) VALUES ('bank', $1,
			$2)`, e.ID, e.Data.Words)
		return err
	}))
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "o", Text: "now"},
		consumertest.Noted{Order: "o", Text: "later"})
	w.Becomes(1, `SELECT count(*) FROM notes WHERE text = 'now'`)
	w.Becomes(1, parkedCount)
	if n := w.Int(`SELECT count(*) FROM pending WHERE convert_from(body,
		'UTF8') LIKE '%"text":"later"%'`); n != 1 {
		t.Error("what is kept is not what came")
	}
	repaired.Store(true)
	w.Exec(`UPDATE pending SET due = now()`) // it is driven again
	w.Becomes(1, `SELECT count(*) FROM notes WHERE text = 'later'`)
	stop()
	w.Drained()
}
