package outbox

import (
	"context"
	"errors"
	"time"
)

// resumeStream goes on with the stream that relayed last. Where that cannot be, the window begins at the
// last mark.
func (t *term) resumeStream(ctx context.Context) error {
	if !t.cursor.Streamed {
		return nil
	}
	err := errors.New("the relay has no source to stream from")
	if t.relay.Source != nil {
		var stream Stream
		if stream, err = t.relay.Source.Resume(ctx); err == nil {
			t.startStreaming(stream)
			return nil
		}
	}
	return t.fallBack(ctx, err)
}

func (t *term) startStreaming(s Stream) {
	t.choice.stream, t.choice.slotDropped = &streaming{Stream: s, unmarked: true, skip: map[int64]bool{}}, false
	t.cursor.LastSeq = 0
	t.relay.streaming.Store(true)
	t.relay.Log.Info().Msg("relay streams")
}

// chooseSource does from time to time what is wanted, and hands over to a stream that has begun.
func (t *term) chooseSource(ctx context.Context) error {
	c := &t.choice
	select {
	case b := <-c.starting:
		c.starting = nil
		if b.err != nil {
			t.relay.Log.Warn().Err(b.err).Msg("no stream to relay from, the window is used")
			c.nextCheck = time.Now().Add(streamRetry)
		} else {
			c.started = &b
		}
	default:
	}
	if c.started != nil {
		return t.handOver(ctx)
	}
	if time.Now().Before(c.nextCheck) {
		return nil
	}
	c.nextCheck = time.Now().Add(chooseInterval)
	wanted, err := t.wantedSource(ctx)
	if err != nil {
		return err
	}
	source := t.relay.Source
	switch {
	case c.stream != nil:
		c.stream.leaving = wanted != FromStream
		return t.checkSlot(ctx)
	case source == nil && wanted == FromStream:
		t.relay.Log.Warn().Msg("a stream is wanted, but this replica has no source to stream from, the " +
			"window is used")
		c.nextCheck = time.Now().Add(time.Minute)
	case source == nil || c.starting != nil:
	case wanted == FromStream:
		ready := make(chan streamStart, 1)
		c.starting = ready
		t.background.Go(func() {
			stream, snapshot, err := source.Begin(ctx)
			ready <- streamStart{stream, snapshot, err}
		})
	case !c.slotDropped:
		if err := source.Drop(ctx); err != nil {
			t.relay.Log.Warn().Err(err).Msg("the place of the stream is not given up, trying again")
			return nil
		}
		c.slotDropped = true
	}
	return nil
}

// checkSlot looks after the place, and says so before the server gives it up. A stream that harms
// others is left.
func (t *term) checkSlot(ctx context.Context) error {
	s := t.choice.stream
	if time.Since(s.slotCheckedAt) < slotInterval {
		return nil
	}
	s.slotCheckedAt = time.Now()
	w, err := t.relay.Source.State(ctx)
	if err != nil {
		return nil // the session will say what is wrong
	}
	if w.Fault != nil {
		if err := t.settleAll(ctx, false); err != nil {
			return err
		}
		return t.fallBack(ctx, w.Fault)
	}
	t.relay.lag.Store(w.LagBytes)
	if w.State != "reserved" {
		t.relay.Log.Warn().Str("slot", w.Name).Str("state", w.State).Int64("lag_bytes", w.LagBytes).
			Msg("the server keeps more of its log for the stream than it should; it will give the stream " +
				"up at max_slot_wal_keep_size")
	}
	return nil
}

// slotVisibleSQL tells whether all that is visible in a slot's snapshot can be seen by queries. The slot
// goes by the commits in the log; a transaction that waits there for a synchronous standby is in
// the slot's snapshot, and not in what a query sees.
const slotVisibleSQL = `
SELECT pg_snapshot_xmax(b) <= pg_snapshot_xmax(s) AND NOT EXISTS (SELECT
	FROM pg_snapshot_xip(s) AS x WHERE pg_visible_in_snapshot(x, b))
FROM pg_current_snapshot() AS s, CAST($1 AS pg_snapshot) AS b`

// handOver lets the window go on to exactly the snapshot that the stream begins after, and then
// streams.
func (t *term) handOver(ctx context.Context) error {
	if t.cursor.A != t.cursor.B || t.publisher.Blocked() || t.brokerBroken() {
		return nil // the window that is open first
	}
	b := t.choice.started
	var over bool
	if err := t.conn.GetContext(ctx, &over, slotVisibleSQL, string(b.snapshot)); err != nil || !over {
		return wrap("look for what the slot has had", err)
	}
	seqs, more, err := outboxLog.Window(ctx, t.conn, t.cursor.A, b.snapshot, 0, t.maxRows())
	if err != nil {
		return err
	}
	if len(seqs) > 0 {
		t.cursor.B, t.cursor.LastSeq = b.snapshot, 0
		return t.publishWindow(ctx, seqs, more) // if it comes to its end, the next window is empty
	}
	// What the window has had since the snapshot was taken comes again from the stream.
	had := map[int64]bool{}
	for last, more := int64(0), true; more; {
		if seqs, more, err = outboxLog.Window(ctx, t.conn, b.snapshot, t.cursor.A, last,
			t.maxRows()); err != nil {
			return err
		}
		for _, seq := range seqs {
			had[seq], last = true, seq
		}
	}
	t.choice.started = nil
	t.startStreaming(b.stream)
	t.choice.stream.skip = had
	t.cursor.Streamed = true
	return t.save(ctx, nil)
}

// fallBack is leave for a stream that has failed, or that could not be gone on with.
func (t *term) fallBack(ctx context.Context, err error) error {
	t.relay.Log.Warn().Err(err).Msg("the stream is lost, the window is used")
	t.choice.nextCheck = time.Now().Add(streamRetry)
	return t.useWindow(ctx)
}

// useWindow goes on with the window, from the last mark: what the stream has had since is published
// again.
func (t *term) useWindow(ctx context.Context) error {
	t.closeStreams()
	t.cursor.B, t.cursor.LastSeq, t.cursor.Streamed = t.cursor.A, 0, false
	return t.save(ctx, nil)
}

// closeStreams closes what is open, also a stream that nobody has taken over yet.
func (t *term) closeStreams() {
	c := &t.choice
	if c.stream != nil {
		c.stream.Close()
		c.stream = nil
	}
	if c.started != nil {
		c.started.stream.Close()
		c.started = nil
	}
	select {
	case b := <-c.starting:
		if b.err == nil {
			b.stream.Close()
		}
		c.starting = nil
	default:
	}
	t.relay.streaming.Store(false)
	t.relay.lag.Store(0)
}
