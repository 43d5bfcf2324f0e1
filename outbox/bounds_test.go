package outbox

import (
	"strconv"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/events"
)

// publish gives the state one published row with this result, and settles it.
func publish(s *state, seq int64, aggregate string, r result) changes {
	a := s.admit([]row{{seq: seq, number: seq, record: events.Record{Subject: aggregate}}}, nil)
	if a[0].result == unknown {
		a[0].result, a[0].reason = r, "test"
	}
	s.queue = append(s.queue, a...)
	c := s.settle()
	for _, h := range c.holds {
		s.heldAggregates[h.aggregate] = true // as findHeld has it for the next row
	}
	return c
}

// retry gives the state one held row that was published again with this result, and settles it.
func retry(s *state, h heldRow, r result) changes {
	a := attempt{origin: ofHeld, tries: h.attempts, result: r, reason: "test", row: row{seq: h.seq,
		record: events.Record{Subject: h.aggregate}}}
	s.queue = append(s.queue, a)
	return s.settle()
}

func TestMaxHeldRefusedRowsMeanABrokenBroker(t *testing.T) {
	t.Parallel()
	s := newState(map[int64]bool{})
	for i := range int64(MaxHeld) {
		if s.brokerBroken() {
			t.Fatalf("the broker counts as broken with %d refused rows", i)
		}
		publish(&s, i+1, strconv.FormatInt(i, 10), refused)
	}
	if !s.brokerBroken() {
		t.Fatalf("the broker does not count as broken with %d refused rows", s.refusedCount)
	}
	holds := retry(&s, heldRow{seq: 1, aggregate: "0", attempts: 1}, refused).holds
	if holds[0].attempts != 1 {
		t.Errorf("attempts %d: a broken broker must not cost an attempt", holds[0].attempts)
	}
}

func TestRowsBehindQuarantinedRowDoNotMeanABrokenBroker(t *testing.T) {
	t.Parallel()
	s := newState(map[int64]bool{})
	for i := range int64(2 * MaxHeld) {
		publish(&s, i+1, "poisoned", quarantined)
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
	s := newState(map[int64]bool{})
	for i := range int64(2 * MaxHeld) {
		publish(&s, i+1, strconv.FormatInt(i, 10), unroutable)
		publish(&s, 2*MaxHeld+i+1, "x"+strconv.FormatInt(i, 10), quarantined)
	}
	for i := range int64(2 * MaxHeld) {
		publish(&s, 4*MaxHeld+i+1, "one", refused)
	}
	if s.brokerBroken() || s.heldCount != 6*MaxHeld || s.refusedCount != 1 {
		t.Fatalf("broken %t, %d held rows, %d refused", s.brokerBroken(), s.heldCount, s.refusedCount)
	}
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		attempts int
		kind     result
		want     time.Duration
	}{
		{0, refused, time.Second},
		{1, refused, time.Second},
		{3, refused, 4 * time.Second},
		{12, refused, 5 * time.Minute},
		{1 << 40, refused, 5 * time.Minute},
		{1, quarantined, noRetry},
	} {
		if got := backoff(c.attempts, c.kind); got != c.want {
			t.Errorf("backoff(%d, %s) = %s, want %s", c.attempts, c.kind, got, c.want)
		}
	}
}

func TestOnlyReplyCodesAboutAMessageQuarantineIt(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]bool{0: false, 311: true, 320: false, 403: false, 404: false,
		406: true, 501: true, 506: false, 530: false, 541: false} {
		s := newState(map[int64]bool{})
		s.queue = s.admit([]row{{seq: 7, number: 7, record: events.Record{Subject: "a"}}}, nil)
		s.lost(code, "test")
		holds := s.settle().holds
		if blamed := len(holds) == 1; blamed != want || blamed &&
			(holds[0].retryIn != noRetry || s.settled != 7) {
			t.Errorf("code %d: holds %+v, settled %d", code, holds, s.settled)
		}
	}
}
