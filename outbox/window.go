package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/quadrille-go/quadrille/rabbit"
)

// pendingPart is a part whose confirms are awaited.
type pendingPart struct {
	part
	confirms []*rabbit.Pending
}

// publishWindow publishes rows of one window, all that are left unless there are more. While some parts
// await their confirms the next is fetched and published, so that neither the database nor the
// broker idles.
func (t *term) publishWindow(ctx context.Context, seqs []int64, more bool) error {
	t.inFlight = nil
	size, depth := t.batch(chunkSize), t.batch(chunksInFlight)
	fetched, stop := t.fetch(ctx, seqs, size)
	defer stop()
	for chunk := range fetched {
		if chunk.err != nil {
			return chunk.err
		}
		if len(t.inFlight) == depth {
			if err := t.settleOldest(ctx, false); err != nil {
				return err
			}
			if err := t.heldAndReplays(ctx); err != nil {
				return err
			}
		}
		// the rest of the window is read again once the broker has repaired
		if t.brokerBroken() || t.publisher.Blocked() {
			return t.settleAll(ctx, false)
		}
		if err := t.publishRows(ctx, chunk.rows); err != nil {
			return err
		}
		if size == 1 && t.suspects == 0 && len(t.inFlight) == 0 {
			return nil // out of danger: the rest of the window is read again at full size
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return t.settleAll(ctx, !more)
}

// publishRows publishes rows, but for those that are held already: what comes a second time, after
// the way in which rows are found has changed or a stream has gone back, must not start over.
func (t *term) publishRows(ctx context.Context, rows []row) error {
	t.relay.limits.markUnfit(rows)
	held, err := t.findHeld(ctx, rows)
	if err != nil {
		return err
	}
	return t.publishPart(ctx, t.divide(rows, held))
}

// publishPart publishes one part.
func (t *term) publishPart(ctx context.Context, part part) error {
	confirms, err := t.publisher.Publish(t.messages(part.publish))
	t.inFlight = append(t.inFlight, pendingPart{part, confirms})
	if err != nil {
		return t.sessionLost(ctx, nil, err)
	}
	if t.suspects > 0 {
		return t.settleOldest(ctx, false)
	}
	return nil
}

func (t *term) messages(rows []row) []rabbit.Message {
	messages := make([]rabbit.Message, len(rows))
	for i, r := range rows {
		r.record.Sequence = r.seq
		messages[i] = rabbit.Message{
			Exchange: t.relay.Exchange, Key: r.record.Type,
			Mandatory:  true, // so that the broker says when nobody is bound; await judges it
			Publishing: rabbit.Publishing(r.record),
		}
	}
	return messages
}

func (t *term) settleAll(ctx context.Context, last bool) error {
	for len(t.inFlight) > 1 {
		if err := t.settleOldest(ctx, false); err != nil {
			return err
		}
	}
	if len(t.inFlight) == 1 {
		return t.settleOldest(ctx, last)
	}
	if last {
		t.closeWindow()
		return t.save(ctx, nil)
	}
	return nil
}

// settleOldest awaits the confirms of the oldest part and saves the cursor; after the last part of
// a window the window is closed with the same write.
func (t *term) settleOldest(ctx context.Context, last bool) error {
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
	if last {
		t.closeWindow()
	}
	// In the middle of a window the cursor is only a matter of how much is published again after
	// a crash, and the publisher waits while it is saved.
	if len(holds) > 0 || last || t.choice.stream == nil && time.Since(t.savedAt) > saveInterval {
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

// logHeld tells of rows that were put aside for themselves, not for those before them: in one line for
// all that may heal, for a broken broker refuses thousands.
func (t *term) logHeld(holds []heldRow) {
	t.relay.held.Store(int64(t.heldCount))
	refused, last := 0, heldRow{}
	for _, h := range holds {
		switch {
		case h.kind == heldQuarantined:
			t.relay.Log.Error().Int64("seq", h.seq).Str("aggregate", h.aggregate).Str("reason",
				h.reason).Msg("event cannot be published, held for ever")
		case h.attempts > 0:
			refused, last = refused+1, h
		}
	}
	if refused > 0 {
		t.relay.Log.Warn().Int("events", refused).Int("held", t.heldCount).Int64("seq", last.seq).Str("reason",
			last.reason).Msg("events held")
	}
}

// awaitConfirms returns the outcomes of these rows, up to and including the first unknown one.
func (t *term) awaitConfirms(ctx context.Context, rows []row, confirms []*rabbit.Pending) ([]outcome,
	error) {
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

// sessionLost saves what is known when the session ends with rows in flight: the outcomes of the
// oldest part, and perhaps which row ended it.
func (t *term) sessionLost(ctx context.Context, outcomes []outcome, why error) error {
	parts := make([]part, len(t.inFlight))
	for i, f := range t.inFlight {
		parts[i] = f.part
	}
	code := rabbit.ServerCode(why)
	if t.relay.limits.learn(why) {
		code = 0 // the next session leaves such rows out, and nobody need be found
	}
	holds := t.settleLost(parts, outcomes, code, why.Error())
	t.logHeld(holds)
	// the stream comes again from the last place that is settled
	if s := t.choice.stream; s != nil && t.suspects > 0 {
		t.suspects = max(t.suspects, int(s.received-s.confirmedNumber))
	}
	if err := t.save(ctx, holds); err != nil {
		return err
	}
	return why
}

type chunk struct {
	rows []row
	err  error
}

// fetch reads the rows of seqs ahead of the publisher; a single chunk without a goroutine.
func (t *term) fetch(ctx context.Context, seqs []int64, size int) (<-chan chunk, func()) {
	if len(seqs) <= size {
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
		for range fetched { // wait for the goroutine to end
		}
	}
}

// windowRows is rows for those that a window has found a moment ago. Nothing deletes what is not
// settled: when one is missing, something is wrong that a person must see, and the cursor does not
// pass it.
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
	return nil, fmt.Errorf("%w: %d of them, the first is seq %d; the relay reads its window again "+
		"from the last settled event. "+
		"Look for a program that deletes from the outbox, or for a damaged index (REINDEX TABLE outbox)",
		ErrMissing, len(missing), missing[0])
}

// rows reads rows by their seqs, in the order of seq.
func (t *term) rows(ctx context.Context, seqs []int64) ([]row, error) {
	stmt, err := t.relay.Outbox.statements.On(ctx, rowColumns+` WHERE seq = ANY($1)`)
	if err != nil {
		return nil, fmt.Errorf("fetch outbox rows: %w", err)
	}
	var result *sqlx.Rows
	if result, err = stmt.QueryxContext(ctx, pq.Int64Array(seqs)); err != nil {
		return nil, fmt.Errorf("fetch outbox rows: %w", err)
	}
	rows, err := scanRows(result)
	if err != nil {
		return nil, fmt.Errorf("fetch outbox rows: %w", err)
	}
	slices.SortFunc(rows, func(a, b row) int { return int(a.seq - b.seq) })
	return rows, nil
}
