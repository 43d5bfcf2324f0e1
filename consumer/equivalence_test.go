package consumer_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
	"github.com/quadrille-go/quadrille/events"
)

var seedFlag = flag.Uint64("seed", 0, "of the random sequence of events; 0: another one each time")

// randomEvents are about few orders and fewer customers, so that batches meet on rows. The events
// of different subjects commute.
func randomEvents(random *rand.Rand, n int) []events.Event {
	customer := func() string { return fmt.Sprint("customer ", random.IntN(7)) }
	list := make([]events.Event, n)
	for i := range list {
		number := random.IntN(n / 4)
		order := fmt.Sprint("order ", number)
		var p events.Payload
		switch random.IntN(5) {
		case 0, 1:
			p = consumertest.Placed{Order: order, Customer: fmt.Sprint("customer ", number%7),
				Amount: 1 + random.Int64N(1000)}
		case 2, 3:
			p = consumertest.Cancelled{Order: order}
		default:
			p = consumertest.Moved{From: customer(), To: customer(), Amount: random.Int64N(100)}
		}
		list[i] = consumertest.Event(consumertest.Shop, p)
	}
	return list
}

// publishedLog is what was said, without ids and times, in any order.
type publishedLog []string

func (s *publishedLog) add(results []consumer.Result) {
	for _, r := range results {
		for _, p := range r.Effects.Publish {
			*s = append(*s, fmt.Sprintf("%s %+v because of %s", p.EventType(), p, r.Cause.ID))
		}
		for _, d := range r.Effects.Schedule {
			*s = append(*s, fmt.Sprintf("%s %+v because of %s", d.Payload.EventType(), d, r.Cause.ID))
		}
	}
}

// rows reads the tables into a memory.
func rows(t *testing.T, db *sqlx.DB) consumer.Memory {
	t.Helper()
	m := consumer.Memory{}
	var payments []consumertest.Payment
	var accounts []consumertest.Account
	if err := db.SelectContext(t.Context(), &payments, `SELECT * FROM payments`); err != nil {
		t.Fatal(err)
	}
	if err := db.SelectContext(t.Context(), &accounts, `SELECT * FROM accounts`); err != nil {
		t.Fatal(err)
	}
	for _, p := range payments {
		if err := m.Put("payments", p.Order, p); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range accounts {
		if err := m.Put("accounts", a.Customer, a); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// The same events end in the same rows and the same words, in memory, in PostgreSQL one by one, in
// batches, and on two replicas at once.
func TestAllWaysOfApplyingAreEquivalent(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (run it again with -args -seed)", seed)
	list := randomEvents(rand.New(rand.NewPCG(seed, 0)), 1000)
	p := consumertest.Participant(nil)
	memory := consumer.Memory{}
	var want publishedLog
	for _, e := range list {
		_, published, err := p.ApplyTo(memory, e)
		if err != nil {
			t.Fatal(err)
		}
		want.add(published)
	}
	slices.Sort(want)
	heap := consumer.Memory{} // all of it in one batch
	if _, _, err := p.ApplyTo(heap, list...); err != nil || heap.String() != memory.String() {
		t.Errorf("one batch in memory: %v\n%s", err, difference(heap, memory))
	}
	for name, run := range map[string]func(t *testing.T, db *sqlx.DB) publishedLog{
		"one by one": func(t *testing.T, db *sqlx.DB) publishedLog {
			return applyAll(t, db, p,
				list, 1)
		},
		"in batches of 200": func(t *testing.T, db *sqlx.DB) publishedLog {
			return applyAll(t, db, p,
				list, 200)
		},
		"on two replicas": func(t *testing.T, db *sqlx.DB) publishedLog {
			return applyOnTwo(t, db, p,
				list, 1)
		},
		"on two, in batches": func(t *testing.T, db *sqlx.DB) publishedLog {
			return applyOnTwo(t, db, p,
				list, 20)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := consumertest.On(t, "", consumertest.Database(t))
			got := run(t, w.DB)
			slices.Sort(got)
			if found := rows(t, w.DB); found.String() != memory.String() {
				t.Errorf("rows differ:\n%s", difference(found, memory))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d things were said, want %d", len(got), len(want))
			}
		})
	}
}

func applyAll(t *testing.T, db *sqlx.DB, p consumer.Participant[consumertest.State],
	list []events.Event, size int) (words publishedLog) {
	t.Helper()
	for batch := range slices.Chunk(list, size) {
		published, _, err := apply(t.Context(), db, p, batch...)
		if err != nil {
			t.Error(err)
			return nil
		}
		words.add(published)
	}
	return words
}

// applyOnTwo splits by subject, as the runtime's lanes do.
func applyOnTwo(t *testing.T, db *sqlx.DB, p consumer.Participant[consumertest.State],
	list []events.Event, size int) publishedLog {
	t.Helper()
	var parts [2][]events.Event
	for _, e := range list {
		subject := e.Data.Subject()
		n := int(subject[len(subject)-1]) % 2
		parts[n] = append(parts[n], e)
	}
	var words [2]publishedLog
	var running sync.WaitGroup
	for i, part := range parts {
		running.Go(func() { words[i] = applyAll(t, db, p, part, size) })
	}
	running.Wait()
	return append(words[0], words[1]...)
}

// difference lists the first rows that differ.
func difference(found, want consumer.Memory) (list string) {
	for table := range want {
		for key, row := range want[table] {
			if other := found[table][key]; other != row && len(list) < 1000 {
				list += fmt.Sprintf("%s %s: found %s, want %s\n", table, key, other, row)
			}
		}
		if len(found[table]) != len(want[table]) {
			list += fmt.Sprintf("%s: found %d rows, want %d\n", table, len(found[table]), len(want[table]))
		}
	}
	return list
}
