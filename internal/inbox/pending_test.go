package inbox_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// hostile returns a row in which PostgreSQL or JSON would refuse every value.
func hostile() inbox.Pending {
	invalid := "\xff\x00" + strings.Repeat("é", 3000)
	return inbox.Pending{
		Owner: invalid, Key: invalid, Type: invalid, Exchange: invalid, RoutingKey: invalid,
		Reason: invalid,
		Body:   []byte{0, 255},
		Attributes: inbox.EnvelopeOf(events.Record{
			ID: invalid, Source: invalid, Type: invalid, Subject: invalid, DataSchema: invalid,
			CorrelationID: invalid,
			CausationID:   invalid, TraceParent: invalid,
			Time: time.Unix(1<<50, 0),
		}),
	}
}

// Any message can be stored with its exact body, and is stored once.
func TestAnyInputIsStored(t *testing.T) {
	t.Parallel()
	db := database(t)
	in := inbox.New(db, "x")
	for range 2 {
		inTx(t, db, func(tx *sqlx.Tx) error { return in.Add(t.Context(), tx, hostile(), 0, true) })
	}
	parked, err := in.Parked(t.Context(), 10)
	if err != nil || len(parked) != 1 {
		t.Fatalf("parked %d, %v", len(parked), err)
	}
	p := parked[0]
	if !bytes.Equal(p.Body, []byte{0, 255}) || p.Due != nil || len(p.Reason) > 2000 ||
		!strings.HasPrefix(p.Reason, "\uFFFD\uFFFDé") {
		t.Errorf("stored as %+v", p)
	}
	if found, err := in.Find(t.Context(), p.Key); err != nil || found.Key != p.Key {
		t.Errorf("find: %v", err)
	}
	if _, err := inbox.New(db, "y").Find(t.Context(), p.Key); !errors.Is(err, inbox.ErrNotFound) {
		t.Errorf("another consumer finds it: %v", err)
	}
}

// A valid record is restored without a change.
func TestRecordIsRestoredUnchanged(t *testing.T) {
	t.Parallel()
	db := database(t)
	in := inbox.New(db, "x")
	want := events.Record{
		ID: events.NewID(), Source: "/orders", Type: "a.b", Subject: strings.Repeat("s", 5000),
		DataSchema:    "urn:quadrille:a.b:1",
		CorrelationID: "c", CausationID: "d", TraceParent: "t", Time: time.Date(2026, 1, 2, 3, 4, 5,
			678000, time.UTC), Sequence: 1 << 60, Data: []byte(`{"a": 1.0}`),
	}
	inTx(t, db, func(tx *sqlx.Tx) error {
		return in.Add(t.Context(), tx, inbox.Pending{Owner: "orders", Key: want.ID,
			Attributes: inbox.EnvelopeOf(want), Body: want.Data}, time.Hour, false)
	})
	p, err := in.Find(t.Context(), want.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Record(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if wait := p.Due.Sub(p.CreatedAt); wait != time.Hour {
		t.Errorf("due after %v", wait)
	}
}

func add(t *testing.T, db *sqlx.DB, in *inbox.Inbox, key, eventType string, after time.Duration,
	park bool) {
	t.Helper()
	inTx(t, db, func(tx *sqlx.Tx) error {
		return in.Add(t.Context(), tx, inbox.Pending{Owner: "o", Key: key, Type: eventType,
			Exchange: "o.events", Body: []byte{}, Attempts: 1}, after, park)
	})
}

// Claim returns only due rows of the given types and of this consumer, oldest first. Two
// transactions never claim the same row.
func TestClaimsAreExclusive(t *testing.T) {
	t.Parallel()
	db := database(t)
	in := inbox.New(db, "x")
	for n := range 50 {
		add(t, db, in, fmt.Sprintf("due %02d", n), "plain", -time.Duration(100-n)*time.Second, false)
	}
	add(t, db, in, "call", "call", -time.Second, false)
	add(t, db, in, "later", "plain", time.Hour, false)
	add(t, db, in, "parked", "plain", 0, true)
	add(t, db, inbox.New(db, "y"), "another's", "plain", -time.Hour, false)
	var claimers, running sync.WaitGroup
	claimers.Add(2)
	var claimed [2][]inbox.Pending
	for i := range claimed {
		running.Go(func() {
			err := pg.InTx(t.Context(), db, func(tx *sqlx.Tx) (err error) {
				claimed[i], err = in.Claim(t.Context(), tx, 30, "plain")
				claimers.Done()
				claimers.Wait() // now both transactions hold their locks
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	seen := map[string]bool{}
	for _, p := range append(claimed[0], claimed[1]...) {
		if seen[p.Key] || !strings.HasPrefix(p.Key, "due ") {
			t.Errorf("claimed %s", p.Key)
		}
		seen[p.Key] = true
	}
	// The share of each depends on the timing of the locks.
	if len(seen) != 50 || len(claimed[0]) > 30 || len(claimed[1]) > 30 {
		t.Errorf("claimed %d and %d", len(claimed[0]), len(claimed[1]))
	}
	inTx(t, db, func(tx *sqlx.Tx) error {
		oldest, err := in.Claim(t.Context(), tx, 1, "call", "plain")
		calls, err2 := in.Claim(t.Context(), tx, 10, "call")
		if len(oldest) != 1 || oldest[0].Key != "due 00" || len(calls) != 1 || calls[0].Key != "call" {
			t.Errorf("oldest %+v, calls %+v", oldest, calls)
		}
		return errors.Join(err, err2)
	})
	if waiting, parked, err := in.Counts(t.Context()); waiting != 52 || parked != 1 || err != nil {
		t.Errorf("counts %d, %d, %v", waiting, parked, err)
	}
}

// A claimed row is finished, leased, rescheduled or parked, and no other row changes.
func TestClaimIsFinishedLeasedRescheduledOrParked(t *testing.T) {
	t.Parallel()
	db := database(t)
	in := inbox.New(db, "x")
	for _, key := range []string{"finish", "lease", "again", "park", "bystander"} {
		add(t, db, in, key, "plain", -time.Second, false)
	}
	inTx(t, db, func(tx *sqlx.Tx) error {
		one := func(key string) inbox.Pending {
			p, ok, err := in.ClaimOne(t.Context(), tx, "o", key)
			if err != nil || !ok {
				t.Errorf("claim %s: %v, %v", key, ok, err)
			}
			p.Attempts, p.Reason = 7, "because\x00"
			return p
		}
		n, err := in.Finish(t.Context(), tx, one("finish"))
		m, err2 := in.Finish(t.Context(), tx, inbox.Pending{Owner: "o", Key: "gone"})
		if n != 1 || m != 0 {
			t.Errorf("finished %d and %d", n, m)
		}
		rescheduled, err3 := in.Reschedule(t.Context(), tx, one("again"), time.Hour, false)
		parked, err4 := in.Reschedule(t.Context(), tx, one("park"), time.Hour, true)
		stale := one("bystander")
		before := stale.Due.Add(-time.Hour)
		stale.Due = &before // as after a lease that has expired
		late, err5 := in.Reschedule(t.Context(), tx, stale, time.Hour, true)
		if !rescheduled || !parked || late {
			t.Errorf("rescheduled %t, parked %t, after the lease %t", rescheduled, parked, late)
		}
		return errors.Join(err, err2, in.Lease(t.Context(), tx, time.Hour, one("lease")), err3, err4,
			err5)
	})
	var left string
	err := db.GetContext(t.Context(), &left, `SELECT string_agg(format('%s %s %s', key,
		CASE WHEN due IS NULL THEN 'parked' WHEN due > now() THEN 'later' ELSE 'due' END, attempts), ', '
			ORDER BY key) FROM pending`)
	if want := "again later 7, bystander due 1, lease later 1, park parked 7"; left != want ||
		err != nil {
		t.Errorf("left: %s, %v; want %s", left, err, want)
	}
	inTx(t, db, func(tx *sqlx.Tx) error {
		if _, ok, err := in.ClaimOne(t.Context(), tx, "o", "lease"); ok || err != nil {
			t.Errorf("a leased row was claimed: %v", err)
		}
		return nil
	})
}

// A time whose year differs between its zone and UTC can be stored.
func TestTimeAtTheEndOfYearsIsStored(t *testing.T) {
	t.Parallel()
	for _, zone := range []int{-12 * 3600, 0, 14 * 3600} {
		for _, seconds := range []int64{253402300799, 253402300800, -62167219200, -62167219201} {
			at := time.Unix(seconds, 0).In(time.FixedZone("there", zone))
			if _, err := inbox.EnvelopeOf(events.Record{Time: at}).Value(); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		}
	}
}

// The bytes of the attributes count towards the bound, since they fill a disk like bodies.
func TestAttributesOfMalformedMessagesAreBounded(t *testing.T) {
	t.Parallel()
	db := database(t)
	in := inbox.New(db, "x")
	random := rand.NewChaCha8([32]byte{})
	var kept int
	const size, room = 100_000, 20
	for n := range 2 * room {
		subject := make([]byte, size/2)
		_, _ = random.Read(subject)
		p := inbox.Pending{
			Owner: "shop.events", Key: fmt.Sprint(inbox.MalformedKey, n), Exchange: "shop.events",
			Body:       []byte("{"),
			Attributes: inbox.EnvelopeOf(events.Record{Subject: hex.EncodeToString(subject)}),
		}
		inTx(t, db, func(tx *sqlx.Tx) error {
			ok, err := in.ParkMalformed(t.Context(), tx, p, inbox.Bounds{Messages: 1000, Bytes: room * size})
			if ok {
				kept++
			}
			return err
		})
	}
	// The database compresses the attributes to somewhat more than half of their size.
	if kept < room-1 || kept >= 2*room-1 {
		t.Errorf("%d messages are stored, where %d of %d bytes have room", kept, room, size)
	}
}
