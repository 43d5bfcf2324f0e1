package outbox

import (
	"strconv"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/rabbit"
)

func refuse(f *state, seq int64, aggregate string, kind rabbit.Outcome) {
	p := f.divide([]row{{seq: seq, at: seq, record: events.Record{Subject: aggregate}}}, nil)
	f.settle(p, []outcome{{kind: kind, reason: "test"}})
}

func TestManyRefusedRowsAreABrokenBroker(t *testing.T) {
	t.Parallel()
	f := &state{behind: map[string]bool{}}
	for i := range int64(MaxHeld) {
		if f.brokerBroken() {
			t.Fatalf("stuck with %d held rows", i)
		}
		refuse(f, i+1, strconv.FormatInt(i, 10), rabbit.Refused)
	}
	if !f.brokerBroken() {
		t.Fatalf("not stuck with %d held rows", f.held)
	}
	_, again, _ := f.settleHeld([]hold{{seq: 1, aggregate: "0", attempts: 1}},
		[]outcome{{kind: rabbit.Refused}})
	if again[0].attempts != 1 {
		t.Errorf("a broken broker costs the row an attempt: %d", again[0].attempts)
	}
}

func TestRowsBehindOneHeldForeverAreNoBrokenBroker(t *testing.T) {
	t.Parallel()
	f := &state{behind: map[string]bool{}}
	for i := range int64(2 * MaxHeld) {
		refuse(f, i+1, "poisoned", rabbit.Unsendable)
	}
	if f.brokerBroken() || f.held != 2*MaxHeld {
		t.Fatalf("stuck %t with %d held rows of one aggregate that can never be published",
			f.brokerBroken(), f.held)
	}
}

// What is held for a cause of its own, or waits behind another row, says nothing about the broker.
func TestOnlyWhatTheBrokerRefusesCountsAgainstIt(t *testing.T) {
	t.Parallel()
	f := &state{behind: map[string]bool{}}
	for i := range int64(2 * MaxHeld) {
		refuse(f, i+1, strconv.FormatInt(i, 10), rabbit.Returned)
		refuse(f, 2*MaxHeld+i+1, "x"+strconv.FormatInt(i, 10), rabbit.Unsendable)
	}
	for i := range int64(2 * MaxHeld) {
		refuse(f, 4*MaxHeld+i+1, "one", rabbit.Refused)
	}
	if f.brokerBroken() || f.held != 6*MaxHeld || f.refused != 1 {
		t.Fatalf("stuck %t with %d held rows, %d refused", f.brokerBroken(), f.held, f.refused)
	}
}

func TestPauseGrowsToItsBound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		attempts int
		kind     rabbit.Outcome
		want     time.Duration
	}{
		{0, rabbit.Refused, time.Second},
		{1, rabbit.Refused, time.Second},
		{3, rabbit.Refused, 4 * time.Second},
		{12, rabbit.Refused, 5 * time.Minute},
		{1 << 40, rabbit.Refused, 5 * time.Minute},
		{1, rabbit.Unsendable, never},
	} {
		if got := pause(c.attempts, c.kind); got != c.want {
			t.Errorf("pause(%d, %d) = %s, want %s", c.attempts, c.kind, got, c.want)
		}
	}
}

func TestOnlyComplaintsAboutAMessageBlameIt(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]bool{0: false, 311: true, 320: false, 403: false, 404: false,
		406: true, 501: true, 506: false, 530: false, 541: false} {
		f := &state{behind: map[string]bool{}}
		p := f.divide([]row{{seq: 7, at: 7, record: events.Record{Subject: "a"}}}, nil)
		holds := f.settleLost([]part{p}, nil, code, "test")
		if blamed := len(holds) == 1; blamed != want || blamed &&
			(holds[0].due != never || f.cursor.LastSeq != 7) {
			t.Errorf("code %d: holds %+v, cursor %d", code, holds, f.cursor.LastSeq)
		}
	}
}
