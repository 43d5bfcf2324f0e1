package consumer_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/internal/inbox"
)

// An event that comes for the first time when it is older than receipts are kept may have been
// handled before, so it is parked and not handled; a person who knows better redrives it. Copies of
// it, and an old event whose receipt is still there, are duplicates.
func TestEventsOlderThanTheReceiptsAreParked(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	c := w.Consumer(consumertest.Service, nil, note("bank"),
		consumertest.Participant(nil).Handler())
	const day = 24 * time.Hour
	old := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o", Text: "old"})
	known := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o", Text: "known"})
	young := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o", Text: "young"})
	old.Time, young.Time = old.Time.Add(-61*day), young.Time.Add(-59*day)
	stop := w.Start(c)
	w.Publish(w.Message(known))
	w.Becomes(1, `SELECT count(*) FROM notes`)
	known.Time = old.Time // its content is the same
	w.Publish(w.Message(old), w.Message(known), w.Message(old), w.Message(young))
	w.Becomes(1, `SELECT count(*) FROM notes WHERE text = 'young'`)
	w.Becomes(1, parkedCount)
	w.Eventually("all are settled", func() (bool, string) {
		s := c.Stats()
		return s.Handled == 2 && s.Duplicates == 2 && s.Parked == 1, fmt.Sprintf("%+v", s)
	})
	in := inbox.New(w.DB, consumertest.Service)
	parked, err := in.Parked(t.Context(), 10)
	if err != nil || len(parked) != 1 || parked[0].Key != old.ID ||
		!strings.Contains(parked[0].Reason, "older than the receipts") {
		t.Fatalf("parked: %+v (%v)", parked, err)
	}
	if _, err := in.Redrive(t.Context(), "ada", "it is new", old.ID); err != nil {
		t.Fatal(err)
	}
	w.Becomes(1, `SELECT count(*) FROM notes WHERE text = 'old'`)
	stop()
	w.Drained()
}
