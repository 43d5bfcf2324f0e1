package engine

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/lib/pq/pqerror"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

const (
	maxAttempts  = 10
	batchMax     = 200
	callPatience = 6 * time.Hour
	patience     = 24 * time.Hour
)

var defaults = Bounds{Retry: Retry{Attempts: maxAttempts, First: time.Second,
	Longest: 5 * time.Minute}}

func state(code string) error { return fmt.Errorf("do: %w", &pq.Error{Code: pqerror.Code(code)}) }

// errors of each class, and what judge says of them: at first, when it is out of reruns, alone and
// in a batch.
var dispositions = []struct {
	name               string
	err                error
	first, last, batch disposition
}{
	{"deadlock", state("40P01"), rerun, delay, split},
	{"serialization", state("40001"), rerun, delay, split},
	{"raced", fmt.Errorf("insert: %w: %w", pg.ErrRaced, state("23505")), rerun, delay, split},
	{"connection", state("08006"), rerun, delay, split},
	{"server shut down", state("57P01"), rerun, delay, split},
	{"read only", state("25006"), rerun, postpone, postpone},
	{"bad connection", driver.ErrBadConn, rerun, delay, split},
	{"end of file", io.ErrUnexpectedEOF, rerun, delay, split},
	{"network", &net.OpError{Op: "read", Err: errors.New("reset")}, rerun, delay, split},
	{"unknown outcome", fmt.Errorf("commit: %w", pg.ErrUnknownOutcome), rerun, delay, split},
	{"lock time-out", state("55P03"), postpone, postpone, postpone},
	{"statement time-out", state("57014"), rerun, delay, split},
	{"disk full", state("53100"), postpone, postpone, postpone},
	{"prepared before a migration", state("26000"), rerun, postpone, postpone},
	{"stored by a newer release", fmt.Errorf("load: %w", RetryAfter(errors.New("unknown fact"),
		time.Second)), postpone, postpone, split},
	{"lock time-out of an outside call's own database", outsideError{state("55P03")}, delay, delay,
		split},
	{"handler that hangs", hungError{"id", "a.b", time.Minute}, delay, delay, split},
	{"handler that exits", errExited, delay, delay, split},
	{"bad data", state("22021"), park, park, split},
	{"program limit", state("54000"), park, park, split},
	{"mistake in SQL", state("42P01"), delay, delay, split},
	{"unique violation of a handler", state("23505"), delay, delay, split},
	{"of the handler", errors.New("no"), delay, delay, split},
	{"deadline", context.DeadlineExceeded, delay, delay, split},
	{"aborted transaction", pq.ErrInFailedTransaction, delay, delay, split},
	{"permanent", fmt.Errorf("refuse: %w", Permanent(errors.New("never"))), park, park, split},
	{"malformed", fmt.Errorf("say: %w", events.ErrMalformed), park, park, split},
	{"unknown type", events.ErrUnknownType, park, park, split},
	{"unknown major", events.ErrUnknownMajor, park, park, split},
	{"too large", events.ErrTooLarge, park, park, split},
	{"network of an outside call", outsideError{&net.OpError{Op: "dial", Err: errors.New("refused")}},
		delay, delay, split},
	{"end of file of an outside call", outsideError{io.EOF}, delay, delay, split},
	{"permanent refusal of an outside call", outsideError{Permanent(errors.New("no such card"))}, park,
		park, split},
}

func TestDisposition(t *testing.T) {
	t.Parallel()
	for _, f := range dispositions {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			want := func(what string, got, want disposition) {
				if got != want {
					t.Errorf("%s: %d, want %d", what, got, want)
				}
			}
			want("first time, alone", defaults.Retry.dispose(f.err, 1, 0, 0, true), f.first)
			want("out of reruns, alone", defaults.Retry.dispose(f.err, 1, MaxReruns, 0, true), f.last)
			want("out of reruns, in a batch", defaults.Retry.dispose(f.err, batchMax, MaxReruns, 0, true),
				f.batch)
			if f.first == rerun {
				want("first time, in a batch", defaults.Retry.dispose(f.err, batchMax, 0, 0, true), rerun)
			} else {
				want("first time, in a batch", defaults.Retry.dispose(f.err, batchMax, 0, 0, true), f.batch)
			}
			if f.last == postpone { // no attempt is spent, so none is the last
				want("last attempt", defaults.Retry.dispose(f.err, 1, MaxReruns, maxAttempts-1, true), postpone)
			} else {
				want("last attempt", defaults.Retry.dispose(f.err, 1, MaxReruns, maxAttempts-1, true), park)
			}
			want("last but one", defaults.Retry.dispose(f.err, 1, MaxReruns, maxAttempts-2, true), f.last)
			// whatever it is, a database that is away costs nothing
			for _, size := range []int{1, batchMax} {
				want("database away", defaults.Retry.dispose(f.err, size, MaxReruns, maxAttempts, false),
					waitForDatabase)
			}
		})
	}
}

// Every batch comes to an end: whatever the error, reruns are bounded, and a part of a batch is
// smaller than the batch.
func TestDispositionEnds(t *testing.T) {
	t.Parallel()
	for _, f := range dispositions {
		for _, size := range []int{1, 2, batchMax} {
			reruns := 0
			for defaults.Retry.dispose(f.err, size, reruns, 0, true) == rerun {
				if reruns++; reruns > MaxReruns {
					t.Fatalf("%s: still run again after %d reruns", f.name, reruns)
				}
			}
			if got := defaults.Retry.dispose(f.err, size, reruns, 0, true); got != postpone &&
				(got == split) != (size > 1) {
				t.Errorf("%s in a batch of %d: %d", f.name, size, got)
			}
		}
	}
}

func TestPausesGrowToABound(t *testing.T) {
	t.Parallel()
	for _, pause := range []struct {
		name       string
		of         func(int) time.Duration
		begin      int
		first, max time.Duration
	}{
		{"retry", defaults.Retry.Pause, 1, time.Second, 5 * time.Minute},
		{"outage", outagePause, 0, outageFirst, outageMax},
	} {
		for n := range 100 {
			want := pause.max
			if n < 30 {
				want = min(pause.first<<n, pause.max)
			}
			if got := pause.of(pause.begin + n); got < want/2 || got > want {
				t.Errorf("%s %d: %v, want between %v and %v", pause.name, n, got, want/2, want)
			}
		}
	}
}

// A peer may be away for longer than the attempts last; then it is not the call that is to blame.
// What can never succeed is parked all the same.
func TestOutsideCallIsMadeAgainForLong(t *testing.T) {
	t.Parallel()
	problem := outsideError{errors.New("503")}
	for _, c := range []struct {
		err  error
		age  time.Duration
		want bool
	}{
		{problem, 0, true},
		{problem, callPatience - 1, true},
		{problem, callPatience, false},
		{outsideError{Permanent(errors.New("400"))}, 0, false},
		{errors.New("not outside"), 0, false},
	} {
		if got := patient(c.err, c.age, callPatience); got != c.want {
			t.Errorf("%v after %s: %t", c.err, c.age, got)
		}
	}
}

// Many that wait for one peer come back the later, the longer they have waited.
func TestWaitGrowsWithAge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ after, age, least time.Duration }{
		{time.Second, 0, time.Second},
		{time.Second, 5 * time.Second, time.Second},
		{time.Second, time.Minute, 6 * time.Second},
		{time.Second, time.Hour, time.Minute},
		{10 * time.Minute, time.Hour, 10 * time.Minute},
		{-time.Second, 0, 0},
	} {
		got, waits := retryPause(outsideError{RetryAfter(errors.New("full"), c.after)}, c.age,
			patience)
		if !waits || got < c.least || got > c.least+c.least/2 {
			t.Errorf("after %s at age %s: %s", c.after, c.age, got)
		}
	}
	if _, waits := retryPause(errors.New("no"), time.Hour, patience); waits {
		t.Error("an error that says nothing waits")
	}
}

// down is a peer that is down: the call was made, and costs no attempt.
type down struct{ error }

func (down) RetryAfter() time.Duration { return time.Minute }
func (down) Made() bool                { return true }

// Past its patience a call that is made and fails costs an attempt, also while the peer counts as
// down; one that is not made never does.
func TestOnlyACallThatIsMadeWearsOut(t *testing.T) {
	t.Parallel()
	if !wasMade(outsideError{down{errors.New("503")}}) ||
		wasMade(outsideError{RetryAfter(errors.New("limit"), 0)}) || wasMade(errors.New("503")) {
		t.Error("calls that are made are not told from those that are not")
	}
}
