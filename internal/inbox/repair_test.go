package inbox_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/inbox"
)

// Of several operators who redrive or discard the same rows at the same time, one does it. What was
// done is on record, once.
func TestAParkedRowIsRepairedOnce(t *testing.T) {
	t.Parallel()
	db := database(t)
	in := inbox.New(db, "test")
	var keys []string
	for n := range 20 {
		keys = append(keys, fmt.Sprintf("key-%02d", n))
		add(t, db, in, keys[n], "user.joined", 0, true)
	}
	add(t, db, inbox.New(db, "another"), keys[0], "user.joined", 0, true)
	var mu sync.Mutex
	var operators sync.WaitGroup
	done := map[string]int{}
	for n := range 4 {
		operators.Go(func() {
			act := in.Redrive
			if n%2 == 1 {
				act = in.Discard
			}
			asked := slices.Clone(keys)
			if n > 1 { // another order must not wait in a circle
				slices.Reverse(asked)
			}
			r, err := act(t.Context(), fmt.Sprint("operator-", n), "fixed", asked...)
			if err != nil || len(r.Done)+len(r.Absent) != len(keys) || len(r.Evidence) > 0 {
				t.Errorf("%+v (%v)", r, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, key := range r.Done {
				done[key]++
			}
		})
	}
	operators.Wait()
	list, next, err := in.Repairs(t.Context(), 0, 15)
	if err != nil || len(list) != 15 || next == 0 {
		t.Fatalf("%d repairs, next %d (%v)", len(list), next, err)
	}
	rest, next, err := in.Repairs(t.Context(), next, 15)
	if err != nil || len(rest) != 5 || next != 0 {
		t.Fatalf("%d further repairs, next %d (%v)", len(rest), next, err)
	}
	for _, key := range keys {
		if done[key] != 1 {
			t.Errorf("%s was repaired %d times", key, done[key])
		}
	}
	if list[0].Reason != "fixed" || list[0].Operator == "" {
		t.Errorf("on record: %+v", list[0])
	}
	if left, err := inbox.New(db, "another").Parked(t.Context(), 9); err != nil || len(left) != 1 {
		t.Errorf("the other consumer has %d parked rows, want its own (%v)", len(left), err)
	}
}

// A redriven row is due with all its attempts. Evidence stays parked until it is discarded, and
// a discarded row is kept on record as a whole.
func TestRedriveAndDiscard(t *testing.T) {
	t.Parallel()
	db := database(t)
	in := inbox.New(db, "test")
	add(t, db, in, "key-1", "user.joined", 0, true)
	inTx(t, db, func(tx *sqlx.Tx) error {
		p := hostile()
		p.Key, p.Kind = "evidence", inbox.Evidence
		return in.Add(t.Context(), tx, p, 0, true)
	})
	r, err := in.Redrive(t.Context(), "ada", "", "key-1", "evidence", "key-1", "gone")
	if err != nil || !slices.Equal(r.Done, []string{"key-1"}) ||
		!slices.Equal(r.Evidence, []string{"evidence"}) || !slices.Equal(r.Absent, []string{"gone"}) {
		t.Errorf("%+v (%v)", r, err)
	}
	inTx(t, db, func(tx *sqlx.Tx) error {
		claimed, err := in.Claim(t.Context(), tx, 9, "user.joined")
		if len(claimed) != 1 || claimed[0].Attempts != 0 {
			t.Errorf("claimed after the redrive: %+v", claimed)
		}
		return err
	})
	r, err = in.Discard(t.Context(), "ada", "a test", "key-1", "evidence")
	if err != nil || !slices.Equal(r.Done, []string{"evidence"}) ||
		!slices.Equal(r.Absent, []string{"key-1"}) {
		t.Errorf("%+v (%v): only what is parked can be discarded", r, err)
	}
	var body, want []byte
	if err := db.Get(&body, `SELECT (discarded->>'body')::bytea FROM repairs
		WHERE action = 'discard'`); err != nil {
		t.Fatal(err)
	}
	if want = hostile().Body; !slices.Equal(body, want) {
		t.Errorf("the record has the body %q, want %q", body, want)
	}
}
