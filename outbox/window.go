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

// flight is a part whose confirms are awaited.
type flight struct {
	part
	pendings []*rabbit.Pending
}

// window publishes rows of one window, all that are left unless there are more. While some parts
// await their confirms the next is fetched and published, so that neither the database nor the
// broker idles.
func (p *term) window(ctx context.Context, seqs []int64, more bool) error {
	p.inFlight = nil
	size, depth := p.batch(chunkSize), p.batch(chunksInFlight)
	fetched, stop := p.fetch(ctx, seqs, size)
	defer stop()
	for chunk := range fetched {
		if chunk.err != nil {
			return chunk.err
		}
		if len(p.inFlight) == depth {
			if err := p.settleOldest(ctx, false); err != nil {
				return err
			}
			if err := p.heldAndReplays(ctx); err != nil {
				return err
			}
		}
		// the rest of the window is read again once the broker has repaired
		if p.brokerBroken() || p.publisher.Blocked() {
			return p.settleAll(ctx, false)
		}
		if err := p.publishRows(ctx, chunk.rows); err != nil {
			return err
		}
		if size == 1 && p.oneByOne == 0 && len(p.inFlight) == 0 {
			return nil // out of danger: the rest of the window is read again at full size
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return p.settleAll(ctx, !more)
}

// publishRows publishes rows, but for those that are held already: what comes a second time, after
// the way in which rows are found has changed or a stream has gone back, must not start over.
func (p *term) publishRows(ctx context.Context, rows []row) error {
	p.relay.limits.check(rows)
	held, err := p.findHeld(ctx, rows)
	if err != nil {
		return err
	}
	return p.publishPart(ctx, p.divide(rows, held))
}

// publishPart publishes one part.
func (p *term) publishPart(ctx context.Context, part part) error {
	pendings, err := p.publisher.Publish(p.messages(part.publish))
	p.inFlight = append(p.inFlight, flight{part, pendings})
	if err != nil {
		return p.sessionLost(ctx, nil, err)
	}
	if p.oneByOne > 0 {
		return p.settleOldest(ctx, false)
	}
	return nil
}

func (p *term) messages(rows []row) []rabbit.Message {
	messages := make([]rabbit.Message, len(rows))
	for i, r := range rows {
		r.record.Sequence = r.seq
		messages[i] = rabbit.Message{
			Exchange: p.relay.Exchange, Key: r.record.Type,
			Mandatory:  true, // so that the broker says when nobody is bound; await judges it
			Publishing: rabbit.Publishing(r.record),
		}
	}
	return messages
}

func (p *term) settleAll(ctx context.Context, last bool) error {
	for len(p.inFlight) > 1 {
		if err := p.settleOldest(ctx, false); err != nil {
			return err
		}
	}
	if len(p.inFlight) == 1 {
		return p.settleOldest(ctx, last)
	}
	if last {
		p.finish()
		return p.save(ctx, nil)
	}
	return nil
}

// settleOldest awaits the confirms of the oldest part and saves the cursor; after the last part of
// a window the window is closed with the same write.
func (p *term) settleOldest(ctx context.Context, last bool) error {
	f := p.inFlight[0]
	outcomes, err := p.await(ctx, f.publish, f.pendings)
	if err != nil {
		return err
	}
	if len(outcomes) > 0 && outcomes[len(outcomes)-1].kind == rabbit.Unknown {
		return p.sessionLost(ctx, outcomes[:len(outcomes)-1], p.unknownOutcome())
	}
	holds, _ := p.settle(f.part, outcomes)
	p.inFlight = p.inFlight[1:]
	if last {
		p.finish()
	}
	// In the middle of a window the cursor is only a matter of how much is published again after
	// a crash, and the publisher waits while it is saved.
	if len(holds) > 0 || last || p.choice.stream == nil && time.Since(p.saved) > saveInterval {
		if err := p.save(ctx, holds); err != nil {
			return err
		}
		p.saved = time.Now()
	}
	for _, o := range outcomes {
		if o.kind == rabbit.Confirmed {
			p.relay.published.Add(1)
		}
	}
	p.log(holds)
	return nil
}

// log tells of rows that were put aside for themselves, not for those before them: in one line for
// all that may heal, for a broken broker refuses thousands.
func (p *term) log(holds []hold) {
	p.relay.held.Store(int64(p.held))
	refused, last := 0, hold{}
	for _, h := range holds {
		switch {
		case h.kind == heldUnsendable:
			p.relay.Log.Error().Int64("seq", h.seq).Str("aggregate", h.aggregate).Str("reason",
				h.reason).Msg("event cannot be published, held for ever")
		case h.attempts > 0:
			refused, last = refused+1, h
		}
	}
	if refused > 0 {
		p.relay.Log.Warn().Int("events", refused).Int("held", p.held).Int64("seq", last.seq).Str("reason",
			last.reason).Msg("events held")
	}
}

// await returns the outcomes of these rows, up to and including the first unknown one.
func (p *term) await(ctx context.Context, rows []row, pendings []*rabbit.Pending) ([]outcome,
	error) {
	outcomes := make([]outcome, 0, len(pendings))
	for i, pending := range pendings {
		kind, why, err := p.publisher.Wait(ctx, pending)
		if err != nil {
			return nil, err
		}
		if kind == rabbit.Returned && !p.relay.mandatory(rows[i].record.Type) {
			p.relay.countUnrouted(rows[i].record.Type)
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
func (p *term) sessionLost(ctx context.Context, outcomes []outcome, why error) error {
	parts := make([]part, len(p.inFlight))
	for i, f := range p.inFlight {
		parts[i] = f.part
	}
	code := rabbit.ServerCode(why)
	if p.relay.limits.learn(why) {
		code = 0 // the next session leaves such rows out, and nobody need be found
	}
	holds := p.settleLost(parts, outcomes, code, why.Error())
	p.log(holds)
	// the stream comes again from the last place that is settled
	if s := p.choice.stream; s != nil && p.oneByOne > 0 {
		p.oneByOne = max(p.oneByOne, int(s.number-s.base))
	}
	if err := p.save(ctx, holds); err != nil {
		return err
	}
	return why
}

type chunk struct {
	rows []row
	err  error
}

// fetch reads the rows of seqs ahead of the publisher; a single chunk without a goroutine.
func (p *term) fetch(ctx context.Context, seqs []int64, size int) (<-chan chunk, func()) {
	if len(seqs) <= size {
		one := make(chan chunk, 1)
		rows, err := p.windowRows(ctx, seqs)
		one <- chunk{rows, err}
		close(one)
		return one, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	fetched := make(chan chunk, 1)
	go func() {
		defer close(fetched)
		for part := range slices.Chunk(seqs, size) {
			rows, err := p.windowRows(ctx, part)
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
func (p *term) windowRows(ctx context.Context, seqs []int64) ([]row, error) {
	rows, err := p.rows(ctx, seqs)
	if err != nil || len(rows) == len(seqs) {
		return rows, err
	}
	var missing []int64
	for _, seq := range seqs {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.seq == seq }) {
			missing = append(missing, seq)
		}
	}
	p.relay.anomalies.Add(1)
	return nil, fmt.Errorf("%w: %d of them, the first is seq %d; the relay reads its window again "+
		"from the last settled event. "+
		"Look for a program that deletes from the outbox, or for a damaged index (REINDEX TABLE outbox)",
		ErrMissing, len(missing), missing[0])
}

// rows reads rows by their seqs, in the order of seq.
func (p *term) rows(ctx context.Context, seqs []int64) ([]row, error) {
	stmt, err := p.relay.Outbox.statements.On(ctx, rowColumns+` WHERE seq = ANY($1)`)
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
