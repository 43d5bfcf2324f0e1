package consumer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// Two events under one id are a fault of their producer that a person must see: the first has its
// effect, and the other is parked. The same event, however often it comes, is a duplicate.
func TestAnotherEventUnderAKnownIDIsParked(t *testing.T) {
	t.Parallel()
	for name, second := range map[string]events.Payload{
		"another body": consumertest.Noted{Order: "o", Text: "two"},
		"another type": consumertest.Reminded{Order: "o"},
	} {
		for _, together := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", together ", together), func(t *testing.T) {
				t.Parallel()
				w := consumertest.New(t)
				first := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o", Text: "one"})
				other := consumertest.Event(consumertest.Shop, second)
				other.ID = first.ID
				messages := []rabbit.Message{w.Message(first), w.Message(first), w.Message(other),
					w.Message(first), w.Message(other)}
				c := w.Consumer(consumertest.Service, nil, note("bank"),
					consumertest.Participant(nil).Handler())
				var stop func()
				if together { // they are in the queue before anybody consumes, and come in one batch
					w.Publish(messages...)
					stop = w.Start(c)
				} else {
					stop = w.Start(c)
					for i, m := range messages {
						w.Publish(m)
						w.Eventually("it is settled", func() (bool, string) {
							s := c.Stats()
							return s.Handled+s.Duplicates+s.Parked == int64(i+1), fmt.Sprintf("%+v", s)
						})
					}
				}
				w.Becomes(1, `SELECT count(*) FROM notes WHERE text = 'one'`)
				w.Becomes(1, parkedCount)
				w.Eventually("all are settled", func() (bool, string) {
					s := c.Stats()
					return s.Handled == 1 && s.Duplicates+s.Parked == 4 && s.Parked > 0, fmt.Sprintf("%+v", s)
				})
				stop()
				w.Drained()
				parked, err := inbox.New(w.DB, consumertest.Service).Parked(t.Context(), 10)
				if err != nil {
					t.Fatal(err)
				}
				if p := parked[0]; p.Type != second.EventType() || p.Attributes.V.ID != first.ID ||
					!strings.Contains(p.Reason, "another event") {
					t.Errorf("parked as %+v", p)
				}
				if n := w.Int(`SELECT count(*) FROM notes`) + w.Int(outboxCount); n != 1 {
					t.Errorf("%d effects, want 1", n)
				}
			})
		}
	}
}

// What came before is a duplicate when it comes again, and another event under its id is a clash,
// whichever of the two comes first in a batch.
func TestDuplicateBehindAClashIsADuplicate(t *testing.T) {
	t.Parallel()
	for name, clashFirst := range map[string]bool{"behind the clash": true,
		"before the clash": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := consumertest.New(t)
			first := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o", Text: "one"})
			other := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o", Text: "two"})
			other.ID = first.ID
			w.Publish(w.Message(first))
			_, stop := w.Bank(note("bank"))
			w.Becomes(1, notesCount)
			stop()
			w.Drained()
			batch := []rabbit.Message{w.Message(first), w.Message(other)}
			if clashFirst {
				slices.Reverse(batch)
			}
			w.Publish(batch...)
			c, stop := w.Bank(note("bank"))
			w.Eventually("both are settled", func() (bool, string) {
				s := c.Stats()
				return s.Duplicates+s.Parked == 2, fmt.Sprintf("%+v", s)
			})
			stop()
			w.Drained()
			if s := c.Stats(); s.Duplicates != 1 || s.Parked != 1 {
				t.Errorf("stats %+v, want one duplicate and one that is parked: %s", s, w.Diagnosis())
			}
		})
	}
}

// A row of an older release says nothing about what the event said: only its type is compared.
func TestRowsOfAnOlderReleaseHaveNoContent(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	e := consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o", Text: "one"})
	w.Exec(`INSERT INTO inbox (consumer, owner, event_id, type) VALUES ($1, $2, $3, 'order.noted')`,
		consumertest.Service, consumertest.Shop, e.ID)
	w.Publish(w.Message(e))
	c, stop := w.Bank(note("bank"))
	w.Eventually("it is a duplicate", func() (bool, string) {
		return c.Stats().Duplicates == 1,
			fmt.Sprintf("%+v", c.Stats())
	})
	stop()
	w.Drained()
	if n := w.Int(pendingCount); n != 0 {
		t.Error(w.Diagnosis())
	}
}

// What a stranger sends is kept up to a bound for each exchange, the rest is counted in one row,
// and events go on. What is not a stranger's is always kept.
func TestMalformedMessagesFillNoDisk(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	const most, mostBytes, beyond = 50, 1 << 20, 30
	send := func(from, n int, body func(i int) []byte) {
		var messages []rabbit.Message
		for i := range n {
			m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o"}))
			m.Body = body(from + i)
			messages = append(messages, m)
		}
		w.Publish(messages...)
	}
	send(0, most+beyond, func(i int) []byte { return fmt.Append(nil, "bad ", i) })
	c := w.Consumer(consumertest.Service, nil, consumertest.Participant(nil).Handler(), note("bank"))
	c.MalformedMessages, c.MalformedBytes = most, mostBytes
	stop := w.Start(c)
	dropped := func(n int64) {
		t.Helper()
		w.Eventually("the rest is counted", func() (bool, string) {
			return c.Stats().Dropped == n,
				fmt.Sprintf("%+v", c.Stats())
		})
	}
	dropped(beyond)
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND key = 'not kept: shop.events'
		AND attempts = $1 AND reason LIKE '30 messages of shop.events%malformed%'`, beyond)
	w.Becomes(most+1, parkedCount)
	m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "newer"}))
	m.Headers["ce-dataschema"] = "urn:quadrille:order.noted:2"
	w.Publish(m)
	w.Becomes(most+2, parkedCount)
	w.PublishAs(consumertest.Shop, consumertest.Noted{Order: "good"})
	w.Becomes(1, notesCount)
	// When a person has looked after what is parked, there is room again, but not for more bytes.
	w.Exec(`DELETE FROM pending`)
	const size = 64 << 10
	const fit = mostBytes/size - 1 // their attributes take some room as well
	send(0, fit+3, func(i int) []byte {
		return append(fmt.Append(nil, i),
			make([]byte, size-len(fmt.Append(nil, i)))...)
	})
	dropped(beyond + 3)
	w.Becomes(fit, `SELECT count(*) FROM pending WHERE key LIKE 'sha256:%'`)
	stop()
	w.Drained()
}

// What comes through the default exchange is parked as forged. It must not look like a deadline,
// which has no exchange and is believed: if somebody makes it due it is parked again.
func TestWhatComesThroughTheDefaultExchangeIsNoDeadline(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	m := w.Message(consumertest.Event(consumertest.Shop, consumertest.Noted{Order: "o"}))
	m.Exchange, m.Key = "", topology.QueueOf(consumertest.Service)
	w.Publish(m)
	_, stop := w.Bank(note("bank"))
	w.Becomes(1, parkedCount)
	w.Becomes(0, `SELECT count(*) FROM pending WHERE exchange = ''`)
	w.Exec(`UPDATE pending SET due = now()`) // as somebody may who wants it tried again
	w.Becomes(1, `SELECT count(*) FROM pending WHERE due IS NULL AND attempts = 1
		AND reason LIKE 'forged%'`)
	stop()
	w.Drained()
	if n := w.Int(notesCount); n != 0 {
		t.Error("it took effect")
	}
}
