package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// pendingPart is a part that was published and whose confirms are awaited.
type pendingPart struct {
	part
	confirms []*rabbit.Pending
}

// publishWindow publishes rows of the open window; more says that the window has rows beyond them,
// so that it must not be closed. While up to chunksInFlight parts await their confirms, the next is
// fetched and published: neither the database nor the broker waits for the other.
func (t *term) publishWindow(ctx context.Context, seqs []int64, more bool) error {
	t.inFlight = nil
	size, depth := t.batch(chunkSize), t.batch(chunksInFlight)
	fetched, stop := t.fetch(ctx, seqs, size)
	defer stop()
	for c := range fetched {
		if c.err != nil {
			return c.err
		}
		if len(t.inFlight) == depth {
			if err := t.settleOldest(ctx, false); err != nil {
				return err
			}
			if err := t.heldAndReplays(ctx); err != nil {
				return err
			}
		}
		// nextWindow reads the rest of the window when the broker accepts messages again.
		if t.brokerBroken() || t.publisher.Blocked() {
			return t.settleAll(ctx, false)
		}
		if err := t.publishRows(ctx, c.rows); err != nil {
			return err
		}
		if size == 1 && t.suspects == 0 && len(t.inFlight) == 0 {
			return nil // no suspects are left: nextWindow reads the rest, in full chunks again
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return t.settleAll(ctx, !more)
}

// publishRows publishes rows, and holds those that must not be published now. Rows may come a
// second time, when the source has changed or a stream has gone back to its checkpoint; rows that
// are held already are left alone then, so that their attempts are not counted from one again.
func (t *term) publishRows(ctx context.Context, rows []row) error {
	t.relay.limits.markUnfit(rows)
	held, err := t.findHeld(ctx, rows)
	if err != nil {
		return err
	}
	return t.publishPart(ctx, t.divide(rows, held))
}

// publishPart publishes a part. While there are suspects it awaits the confirm at once, so that
// a single row is in flight.
func (t *term) publishPart(ctx context.Context, p part) error {
	confirms, err := t.publisher.Publish(t.messages(p.publish))
	t.inFlight = append(t.inFlight, pendingPart{p, confirms})
	if err != nil {
		return t.sessionLost(ctx, nil, err)
	}
	if t.suspects > 0 {
		return t.settleOldest(ctx, false)
	}
	return nil
}

// messages converts rows into messages. The sequence of a message is the row's seq, which stays the
// same when the row is published again.
func (t *term) messages(rows []row) []rabbit.Message {
	messages := make([]rabbit.Message, len(rows))
	for i, r := range rows {
		r.record.Sequence = r.seq
		messages[i] = rabbit.Message{
			Exchange: t.relay.Exchange, Key: r.record.Type,
			Mandatory:  true, // the broker returns unroutable messages; awaitConfirms decides
			Publishing: rabbit.Publishing(r.record),
		}
	}
	return messages
}

// settleAll awaits all confirms. With closes set, it closes the window, whose rows all are in
// flight or settled.
func (t *term) settleAll(ctx context.Context, closes bool) error {
	for len(t.inFlight) > 1 {
		if err := t.settleOldest(ctx, false); err != nil {
			return err
		}
	}
	if len(t.inFlight) == 1 {
		return t.settleOldest(ctx, closes)
	}
	if closes {
		t.closeWindow()
		return t.save(ctx, nil)
	}
	return nil
}

// settleOldest awaits the confirms of the oldest part and moves the cursor over it. With closes
// set, the part is the last of its window, and the same write closes the window.
func (t *term) settleOldest(ctx context.Context, closes bool) error {
	f := t.inFlight[0]
	outcomes, err := t.awaitConfirms(ctx, f.publish, f.confirms)
	if err != nil {
		return err
	}
	if len(outcomes) > 0 && outcomes[len(outcomes)-1].kind == rabbit.Unknown {
		return t.sessionLost(ctx, outcomes[:len(outcomes)-1], t.unknownOutcome())
	}
	holds, _ := t.settle(f.part, outcomes)
	t.inFlight = t.inFlight[1:]
	if closes {
		t.closeWindow()
	}
	// Within a window the stored cursor only decides how many events are published twice after
	// a crash. Publishing pauses while it is saved, so it is saved once in saveInterval. While
	// a stream is used, the stream's checkpoint decides that.
	if len(holds) > 0 || closes || t.choice.stream == nil && time.Since(t.savedAt) > saveInterval {
		if err := t.save(ctx, holds); err != nil {
			return err
		}
		t.savedAt = time.Now()
	}
	for _, o := range outcomes {
		if o.kind == rabbit.Confirmed {
			t.relay.published.Add(1)
		}
	}
	t.logHeld(holds)
	return nil
}

// logHeld logs rows that were held because of their own outcome. Rows that wait for an earlier row
// are not logged, and all rows that are retried share one line: a broken broker refuses thousands.
func (t *term) logHeld(holds []heldRow) {
	t.relay.held.Store(int64(t.heldCount))
	refused, last := 0, heldRow{}
	for _, h := range holds {
		switch {
		case h.kind == heldQuarantined:
			t.relay.Log.Error().Int64("seq", h.seq).Str("aggregate", h.aggregate).
				Str("reason", h.reason).Msg("event quarantined: it cannot be published as it is; " +
				"repair the cause, then replay the event")
		case h.attempts > 0:
			refused, last = refused+1, h
		}
	}
	if refused > 0 {
		t.relay.Log.Warn().Int("events", refused).Int("held", t.heldCount).Int64("seq", last.seq).
			Str("reason", last.reason).Msg("events held, they are published again later")
	}
}

// awaitConfirms returns the outcomes of these rows, up to and including the first unknown one. A
// row that the broker returned counts as confirmed unless its type is mandatory.
func (t *term) awaitConfirms(ctx context.Context, rows []row,
	confirms []*rabbit.Pending) ([]outcome, error) {
	outcomes := make([]outcome, 0, len(confirms))
	for i, pending := range confirms {
		kind, why, err := t.publisher.Wait(ctx, pending)
		if err != nil {
			return nil, err
		}
		if kind == rabbit.Returned && !t.relay.mandatory(rows[i].record.Type) {
			t.relay.countUnrouted(rows[i].record.Type)
			kind, why = rabbit.Confirmed, nil
		}
		o := outcome{kind: kind}
		if why != nil {
			o.reason = why.Error()
		}
		outcomes = append(outcomes, o)
		if kind == rabbit.Unknown {
			break
		}
	}
	return outcomes, nil
}

// sessionLost settles what can be settled when the session ended with rows in flight: outcomes are
// those of the oldest part, and the broker's reason may tell which row ended the session. It
// returns why, which ends the term.
func (t *term) sessionLost(ctx context.Context, outcomes []outcome, why error) error {
	parts := make([]part, len(t.inFlight))
	for i, f := range t.inFlight {
		parts[i] = f.part
	}
	code := rabbit.ServerCode(why)
	if t.relay.limits.learn(why) {
		code = 0 // markUnfit finds such rows from now on, so that no row need be isolated
	}
	holds := t.settleLost(parts, outcomes, code, why.Error())
	t.logHeld(holds)
	// The stream goes back to its last confirmed position, and delivers settled rows again before it
	// comes to the suspects: all of them are published one at a time.
	if s := t.choice.stream; s != nil && t.suspects > 0 {
		t.suspects = max(t.suspects, int(s.received-s.confirmedNumber))
	}
	if err := t.save(ctx, holds); err != nil {
		return err
	}
	return why
}

// chunk is the result of one read by fetch.
type chunk struct {
	rows []row
	err  error
}

// fetch reads the rows of seqs in chunks, one chunk ahead of the publisher. The caller calls the
// returned function in the end; it waits for the goroutine, which must not outlive the term.
func (t *term) fetch(ctx context.Context, seqs []int64, size int) (<-chan chunk, func()) {
	if len(seqs) <= size { // a quiet outbox has one chunk: a goroutine would only cost time
		one := make(chan chunk, 1)
		rows, err := t.windowRows(ctx, seqs)
		one <- chunk{rows, err}
		close(one)
		return one, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	fetched := make(chan chunk, 1)
	go func() {
		defer close(fetched)
		for part := range slices.Chunk(seqs, size) {
			rows, err := t.windowRows(ctx, part)
			select {
			case fetched <- chunk{rows, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return fetched, func() {
		cancel()
		for range fetched { // until the goroutine has closed it
		}
	}
}

// windowRows reads rows whose seqs the window has just found. The retention deletes settled rows
// only, so a missing row means a damaged index or a foreign program. The cursor must not pass it in
// silence: the term ends with ErrMissing.
func (t *term) windowRows(ctx context.Context, seqs []int64) ([]row, error) {
	rows, err := t.rows(ctx, seqs)
	if err != nil || len(rows) == len(seqs) {
		return rows, err
	}
	var missing []int64
	for _, seq := range seqs {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.seq == seq }) {
			missing = append(missing, seq)
		}
	}
	t.relay.anomalies.Add(1)
	return nil, fmt.Errorf("%w: %d rows, the first has seq %d; the relay reads the window again "+
		"from the last settled event. "+
		"Look for a program that deletes from the outbox, or for a damaged index (REINDEX TABLE outbox)",
		ErrMissing, len(missing), missing[0])
}

// rows reads rows by their seqs, in the order of seq. Rows that are not in the outbox are left out.
func (t *term) rows(ctx context.Context, seqs []int64) ([]row, error) {
	stmt, err := t.relay.Outbox.statements.On(ctx, rowColumns+` WHERE seq = ANY($1)`)
	if err != nil {
		return nil, fmt.Errorf("fetch outbox rows: %w", err)
	}
	var found *sqlx.Rows
	if found, err = stmt.QueryxContext(ctx, pq.Int64Array(seqs)); err != nil {
		return nil, fmt.Errorf("fetch outbox rows: %w", err)
	}
	rows, err := scanRows(found)
	if err != nil {
		return nil, fmt.Errorf("fetch outbox rows: %w", err)
	}
	slices.SortFunc(rows, func(a, b row) int { return int(a.seq - b.seq) })
	return rows, nil
}
