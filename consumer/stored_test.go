package consumer_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
)

// An event that meets something stored which this release cannot read, or which was changed, is not
// parked for it, although the same error about the event itself would park it.
func TestWhatIsStoredCostsNoAttempt(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	for i, err := range []error{
		&eventstore.StoredError{Stream: "account/ada", Version: 3, Cause: events.ErrUnknownType},
		&eventstore.StoredError{Stream: "account/ada", Version: 3, Cause: events.ErrUnknownMajor},
		&eventstore.StoredError{Stream: "account/ada", Version: 3, Cause: events.ErrMalformed},
		&eventstore.MismatchError{Stream: "account/ada", Version: 3, Why: "it is missing"},
	} {
		w.PublishAs(consumertest.Shop, consumertest.Noted{Order: fmt.Sprint(i)})
		handler := consumer.Handle(func(context.Context, *sqlx.Tx, events.Of[consumertest.Noted]) error {
			return fmt.Errorf("load account: %w", err)
		})
		c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(), handler)
		stop := w.Start(c)
		w.Becomes(i+1, `SELECT count(*) FROM pending WHERE attempts = 0 AND due IS NOT NULL
			AND reason LIKE '%account/ada%'`)
		stop()
		if s := c.Stats(); s.Parked != 0 {
			t.Errorf("%v: stats %+v", err, s)
		}
	}
}
