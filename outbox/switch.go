package outbox

import (
	"context"
	"errors"
	"time"
)

// resume goes on with the stream that relayed last. Where that cannot be, the window begins at the
// last mark.
func (p *term) resume(ctx context.Context) error {
	if !p.cursor.Streamed {
		return nil
	}
	err := errors.New("the relay has no source to stream from")
	if p.relay.Source != nil {
		var stream Stream
		if stream, err = p.relay.Source.Resume(ctx); err == nil {
			p.stream(stream)
			return nil
		}
	}
	return p.fallBack(ctx, err)
}

func (p *term) stream(s Stream) {
	p.choice.stream, p.choice.tidied = &streaming{Stream: s, news: true, had: map[int64]bool{}}, false
	p.cursor.LastSeq = 0
	p.relay.streaming.Store(true)
	p.relay.Log.Info().Msg("relay streams")
}

// chooseSource does from time to time what is wanted, and hands over to a stream that has begun.
func (p *term) chooseSource(ctx context.Context) error {
	c := &p.choice
	select {
	case b := <-c.begun:
		c.begun = nil
		if b.err != nil {
			p.relay.Log.Warn().Err(b.err).Msg("no stream to relay from, the window is used")
			c.at = time.Now().Add(streamRetry)
		} else {
			c.ready = &b
		}
	default:
	}
	if c.ready != nil {
		return p.handOver(ctx)
	}
	if time.Now().Before(c.at) {
		return nil
	}
	c.at = time.Now().Add(chooseInterval)
	wanted, err := p.wantedSource(ctx)
	if err != nil {
		return err
	}
	source := p.relay.Source
	switch {
	case c.stream != nil:
		c.stream.leaving = wanted != FromStream
		return p.checkSlot(ctx)
	case source == nil && wanted == FromStream:
		p.relay.Log.Warn().Msg("a stream is wanted, but this replica has no source to stream from, the " +
			"window is used")
		c.at = time.Now().Add(time.Minute)
	case source == nil || c.begun != nil:
	case wanted == FromStream:
		ready := make(chan begun, 1)
		c.begun = ready
		p.background.Go(func() {
			stream, snapshot, err := source.Begin(ctx)
			ready <- begun{stream, snapshot, err}
		})
	case !c.tidied:
		if err := source.Drop(ctx); err != nil {
			p.relay.Log.Warn().Err(err).Msg("the place of the stream is not given up, trying again")
			return nil
		}
		c.tidied = true
	}
	return nil
}

// checkSlot looks after the place, and says so before the server gives it up. A stream that harms
// others is left.
func (p *term) checkSlot(ctx context.Context) error {
	s := p.choice.stream
	if time.Since(s.watched) < slotInterval {
		return nil
	}
	s.watched = time.Now()
	w, err := p.relay.Source.State(ctx)
	if err != nil {
		return nil // the session will say what is wrong
	}
	if w.Fault != nil {
		if err := p.settleAll(ctx, false); err != nil {
			return err
		}
		return p.fallBack(ctx, w.Fault)
	}
	p.relay.lag.Store(w.LagBytes)
	if w.State != "reserved" {
		p.relay.Log.Warn().Str("slot", w.Name).Str("state", w.State).Int64("lag_bytes", w.LagBytes).
			Msg("the server keeps more of its log for the stream than it should; it will give the stream " +
				"up at max_slot_wal_keep_size")
	}
	return nil
}

// overSQL tells whether all that is visible in a slot's snapshot can be seen by queries. The slot
// goes by the commits in the log; a transaction that waits there for a synchronous standby is in
// the slot's snapshot, and not in what a query sees.
const overSQL = `
SELECT pg_snapshot_xmax(b) <= pg_snapshot_xmax(s) AND NOT EXISTS (SELECT
	FROM pg_snapshot_xip(s) AS x WHERE pg_visible_in_snapshot(x, b))
FROM pg_current_snapshot() AS s, CAST($1 AS pg_snapshot) AS b`

// handOver lets the window go on to exactly the snapshot that the stream begins after, and then
// streams.
func (p *term) handOver(ctx context.Context) error {
	if p.cursor.A != p.cursor.B || p.publisher.Blocked() || p.brokerBroken() {
		return nil // the window that is open first
	}
	b := p.choice.ready
	var over bool
	if err := p.conn.GetContext(ctx, &over, overSQL, string(b.snapshot)); err != nil || !over {
		return wrap("look for what the slot has had", err)
	}
	seqs, more, err := outboxLog.Window(ctx, p.conn, p.cursor.A, b.snapshot, 0, p.maxRows())
	if err != nil {
		return err
	}
	if len(seqs) > 0 {
		p.cursor.B, p.cursor.LastSeq = b.snapshot, 0
		return p.window(ctx, seqs, more) // if it comes to its end, the next window is empty
	}
	// What the window has had since the snapshot was taken comes again from the stream.
	had := map[int64]bool{}
	for last, more := int64(0), true; more; {
		if seqs, more, err = outboxLog.Window(ctx, p.conn, b.snapshot, p.cursor.A, last,
			p.maxRows()); err != nil {
			return err
		}
		for _, seq := range seqs {
			had[seq], last = true, seq
		}
	}
	p.choice.ready = nil
	p.stream(b.stream)
	p.choice.stream.had = had
	p.cursor.Streamed = true
	return p.save(ctx, nil)
}

// fallBack is leave for a stream that has failed, or that could not be gone on with.
func (p *term) fallBack(ctx context.Context, err error) error {
	p.relay.Log.Warn().Err(err).Msg("the stream is lost, the window is used")
	p.choice.at = time.Now().Add(streamRetry)
	return p.useWindow(ctx)
}

// useWindow goes on with the window, from the last mark: what the stream has had since is published
// again.
func (p *term) useWindow(ctx context.Context) error {
	p.closeStreams()
	p.cursor.B, p.cursor.LastSeq, p.cursor.Streamed = p.cursor.A, 0, false
	return p.save(ctx, nil)
}

// closeStreams closes what is open, also a stream that nobody has taken over yet.
func (p *term) closeStreams() {
	c := &p.choice
	if c.stream != nil {
		c.stream.Close()
		c.stream = nil
	}
	if c.ready != nil {
		c.ready.stream.Close()
		c.ready = nil
	}
	select {
	case b := <-c.begun:
		if b.err == nil {
			b.stream.Close()
		}
		c.begun = nil
	default:
	}
	p.relay.streaming.Store(false)
	p.relay.lag.Store(0)
}
