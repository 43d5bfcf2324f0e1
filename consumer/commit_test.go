package consumer_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

// CON-16: whether a COMMIT was lost or only its answer, the inbox settles it: one effect, one word
// about it, one ack, no attempt.
func TestACommitOfUnknownOutcomeHasOneEffect(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]consumertest.Cut{"COMMIT is lost": consumertest.CutBefore,
		"answer is lost": consumertest.CutAnswer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := consumertest.New(t)
			var runs atomic.Int32
			proxy, url := consumertest.NewProxy(t, w.Postgres)
			p := consumertest.Participant(func(*consumertest.State,
				events.Of[consumertest.Placed]) (consumer.Effects, error) {
				if runs.Add(1) == 1 {
					proxy.OnCommit(cut, "payment.captured")
				}
				return consumer.Effects{}, nil
			})
			c := w.Consumer(consumertest.Service, w.Pool(url), p.Handler())
			stop := w.Start(c)
			w.PublishAs(consumertest.Shop, consumertest.Placed{Order: "o", Customer: "anna", Amount: 30})
			w.Eventually("it came", func() (bool, string) {
				s := c.Stats()
				return s.Handled+s.Duplicates == 1, w.Diagnosis()
			})
			stop()
			w.Drained()
			if proxy.Cuts() != 1 {
				t.Fatalf("%d commits were cut", proxy.Cuts())
			}
			if n := w.Int(`SELECT count(*) FROM accounts WHERE balance = -30`); n != 1 ||
				w.Int(outboxCount) != 1 || w.Int(inboxCount) != 1 {
				t.Errorf("%s", w.Diagnosis())
			}
			want := consumer.Stats{Handled: 1, Batches: 1}
			if cut == consumertest.CutAnswer {
				want = consumer.Stats{Duplicates: 1, Batches: 1}
			}
			if s := c.Stats(); s != want {
				t.Errorf("stats %+v, want %+v", s, want)
			}
		})
	}
}

// The same for what the schedule does: a retry, a deadline, and the answer of a call.
func TestADueCommitOfUnknownOutcomeHasOneEffect(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]consumertest.Cut{"COMMIT is lost": consumertest.CutBefore,
		"answer is lost": consumertest.CutAnswer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := consumertest.New(t)
			w.RetryByHand()
			proxy, url := consumertest.NewProxy(t, w.Postgres)
			var notes, calls, expiries atomic.Int32
			p := consumertest.Participant(nil)
			p.React[len(p.React)-1] = consumer.On(func(_ *consumertest.State,
				e events.Of[consumertest.Expired]) (consumer.Effects, error) {
				if expiries.Add(1) == 1 {
					proxy.OnCommit(cut, "payment.overdue")
				}
				return consumer.Publish(consumertest.Overdue{Order: e.Data.Order}), nil
			})
			c := w.Consumer(consumertest.Service, w.Pool(url), p.Handler(),
				consumer.Handle(func(ctx context.Context, tx *sqlx.Tx, e events.Of[consumertest.Noted]) error {
					switch notes.Add(1) {
					case 1:
						panic("not now")
					case 2:
						proxy.OnCommit(cut, "the effect")
					}
					return insertNote(ctx, tx, "bank", e)
				}),
				consumer.Call(func(_ context.Context, e events.Of[consumertest.Asked]) (events.Payload, error) {
					switch calls.Add(1) {
					case 1:
						panic("not now")
					case 2:
						proxy.OnCommit(cut, "question.answered")
					}
					return consumertest.Answered{Order: e.Data.Order}, nil
				}))
			stop := w.Start(c)
			for i, payload := range []events.Payload{consumertest.Noted{Order: "n", Text: "the effect"},
				consumertest.Asked{Order: "a"}, consumertest.Reminded{Order: "d", At: time.Now()}} {
				w.PublishAs(consumertest.Shop, payload)
				w.Becomes(i+1, inboxCount)
				if i < 2 {
					w.Becomes(1, `SELECT count(*) FROM pending WHERE attempts = 1`)
					w.Exec(`UPDATE pending SET due = now()`)
				}
				w.Eventually("a cut", func() (bool, string) { return proxy.Cuts() == i+1, w.Diagnosis() })
				w.Becomes(0, pendingCount)
			}
			stop()
			w.Drained()
			if w.Int(notesCount) != 1 || w.Int(outboxCount) != 2 {
				t.Errorf("%s", w.Diagnosis())
			}
			if s := c.Stats(); s.Delayed != 2 || s.Parked != 0 {
				t.Errorf("stats %+v: an attempt was spent", s)
			}
		})
	}
}
