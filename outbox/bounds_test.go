package outbox

import (
	"strconv"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// refuse gives the state one published row with this outcome.
func refuse(s *state, seq int64, aggregate string, kind rabbit.Outcome) {
	p := s.divide([]row{{seq: seq, number: seq, record: events.Record{Subject: aggregate}}}, nil)
	s.settle(p, []outcome{{kind: kind, reason: "test"}})
}

func TestMaxHeldRefusedRowsMeanABrokenBroker(t *testing.T) {
	t.Parallel()
	s := &state{heldAggregates: map[string]bool{}}
	for i := range int64(MaxHeld) {
		if s.brokerBroken() {
			t.Fatalf("the broker counts as broken with %d refused rows", i)
		}
		refuse(s, i+1, strconv.FormatInt(i, 10), rabbit.Refused)
	}
	if !s.brokerBroken() {
		t.Fatalf("the broker does not count as broken with %d refused rows", s.refusedCount)
	}
	_, holds, _ := s.settleHeld([]heldRow{{seq: 1, aggregate: "0", attempts: 1}},
		[]outcome{{kind: rabbit.Refused}})
	if holds[0].attempts != 1 {
		t.Errorf("attempts %d: a broken broker must not cost an attempt", holds[0].attempts)
	}
}

func TestRowsBehindQuarantinedRowDoNotMeanABrokenBroker(t *testing.T) {
	t.Parallel()
	s := &state{heldAggregates: map[string]bool{}}
	for i := range int64(2 * MaxHeld) {
		refuse(s, i+1, "poisoned", rabbit.Unsendable)
	}
	if s.brokerBroken() || s.heldCount != 2*MaxHeld {
		t.Fatalf("broken %t, %d held rows behind one quarantined row",
			s.brokerBroken(), s.heldCount)
	}
}

// Rows that are unroutable or quarantined, or wait behind another row, do not show that the broker
// is broken.
func TestOnlyRefusedRowsCountTowardsMaxHeld(t *testing.T) {
	t.Parallel()
	s := &state{heldAggregates: map[string]bool{}}
	for i := range int64(2 * MaxHeld) {
		refuse(s, i+1, strconv.FormatInt(i, 10), rabbit.Returned)
		refuse(s, 2*MaxHeld+i+1, "x"+strconv.FormatInt(i, 10), rabbit.Unsendable)
	}
	for i := range int64(2 * MaxHeld) {
		refuse(s, 4*MaxHeld+i+1, "one", rabbit.Refused)
	}
	if s.brokerBroken() || s.heldCount != 6*MaxHeld || s.refusedCount != 1 {
		t.Fatalf("broken %t, %d held rows, %d refused", s.brokerBroken(), s.heldCount, s.refusedCount)
	}
}

func TestBackoffGrowsToItsBound(t *testing.T) {
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
		{1, rabbit.Unsendable, noRetry},
	} {
		if got := backoff(c.attempts, c.kind); got != c.want {
			t.Errorf("pause(%d, %d) = %s, want %s", c.attempts, c.kind, got, c.want)
		}
	}
}

func TestOnlyReplyCodesAboutAMessageQuarantineIt(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]bool{0: false, 311: true, 320: false, 403: false, 404: false,
		406: true, 501: true, 506: false, 530: false, 541: false} {
		s := &state{heldAggregates: map[string]bool{}}
		p := s.divide([]row{{seq: 7, number: 7, record: events.Record{Subject: "a"}}}, nil)
		holds := s.settleLost([]part{p}, nil, code, "test")
		if blamed := len(holds) == 1; blamed != want || blamed &&
			(holds[0].retryIn != noRetry || s.cursor.LastSeq != 7) {
			t.Errorf("code %d: holds %+v, cursor %d", code, holds, s.cursor.LastSeq)
		}
	}
}
