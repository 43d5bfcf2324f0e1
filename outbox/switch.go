package outbox

import (
	"context"
	"errors"
	"time"
)

// resumeStream resumes the stream if the last leader has used it. When the stream cannot be
// resumed, the window goes on from the last mark.
func (t *term) resumeStream(ctx context.Context) error {
	if !t.cursor.Streamed {
		return nil
	}
	err := errors.New("this replica has no Source")
	if t.relay.Source != nil {
		var stream Stream
		if stream, err = t.relay.Source.Resume(ctx); err == nil {
			t.startStreaming(stream)
			return nil
		}
	}
	return t.fallBack(ctx, err)
}

// startStreaming makes the stream the source in use. The numbers of its rows begin at 1.
func (t *term) startStreaming(s Stream) {
	t.choice.stream = &streaming{Stream: s, unmarked: true, skip: map[int64]bool{}}
	t.choice.slotDropped = false
	t.cursor.LastSeq = 0
	t.relay.streaming.Store(true)
	t.relay.Log.Info().Msg("relay streams")
}

// chooseSource reads once in chooseInterval which source is wanted, and starts or leaves a stream
// accordingly. Source.Begin runs in the background, because it waits for running transactions while
// the window must go on.
func (t *term) chooseSource(ctx context.Context) error {
	c := &t.choice
	select { // without waiting; a nil channel is never ready
	case b := <-c.starting:
		c.starting = nil
		if b.err != nil {
			t.relay.Log.Warn().Err(b.err).Msg("the stream cannot be started, the relay uses the window " +
				"and tries again")
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
	case c.stream != nil: // markStep leaves the stream when it has reached a mark
		c.stream.leaving = wanted != FromStream
		return t.checkSlot(ctx)
	case source == nil && wanted == FromStream:
		t.relay.Log.Warn().Msg("the stream is wanted, but this replica has no Source: the relay uses " +
			"the window")
		c.nextCheck = time.Now().Add(time.Minute)
	case source == nil || c.starting != nil: // there is nothing to start or to drop
	case wanted == FromStream:
		ready := make(chan streamStart, 1)
		c.starting = ready
		t.background.Go(func() {
			stream, snapshot, err := source.Begin(ctx)
			ready <- streamStart{stream, snapshot, err}
		})
	case !c.slotDropped: // the window is wanted, and the server need not keep its log
		if err := source.Drop(ctx); err != nil {
			t.relay.Log.Warn().Err(err).Msg("the replication slot of the stream cannot be dropped, the " +
				"relay tries again")
			return nil
		}
		c.slotDropped = true
	}
	return nil
}

// checkSlot warns before the server gives up the slot because its log has grown too large, and
// leaves a stream whose slot has a fault, such as one for which every commit would wait.
func (t *term) checkSlot(ctx context.Context) error {
	s := t.choice.stream
	if time.Since(s.slotCheckedAt) < slotInterval {
		return nil
	}
	s.slotCheckedAt = time.Now()
	slot, err := t.relay.Source.State(ctx)
	if err != nil {
		return nil // if the server has a fault, the stream reports it
	}
	if slot.Fault != nil {
		if err := t.settleAll(ctx, false); err != nil {
			return err
		}
		return t.fallBack(ctx, slot.Fault)
	}
	t.relay.lag.Store(slot.LagBytes)
	if slot.State != "reserved" {
		t.relay.Log.Warn().Str("slot", slot.Name).Str("state", slot.State).
			Int64("lag_bytes", slot.LagBytes).
			Msg("the server keeps too much of its write-ahead log for the stream; when that exceeds " +
				"max_slot_wal_keep_size, the server removes the log and the stream is lost")
	}
	return nil
}

// slotVisibleSQL reports whether queries see everything that is visible in the slot's snapshot. A
// slot follows the commits in the log. A transaction whose commit waits for a synchronous standby
// is visible in the slot's snapshot but not yet to queries, and neither the window nor the stream
// would deliver its rows if the stream took over now.
const slotVisibleSQL = `
SELECT pg_snapshot_xmax(b) <= pg_snapshot_xmax(s) AND NOT EXISTS (SELECT
	FROM pg_snapshot_xip(s) AS x WHERE pg_visible_in_snapshot(x, b))
FROM pg_current_snapshot() AS s, CAST($1 AS pg_snapshot) AS b`

// handOver lets the window go on to exactly the snapshot after which the stream begins, and then
// uses the stream. It runs in several calls, with the publishing of windows between them.
func (t *term) handOver(ctx context.Context) error {
	if t.cursor.A != t.cursor.B || t.publisher.Blocked() || t.brokerBroken() {
		return nil // the open window must be closed first
	}
	b := t.choice.started
	var visible bool
	if err := t.conn.GetContext(ctx, &visible, slotVisibleSQL,
		string(b.snapshot)); err != nil || !visible {
		return wrap("compare the slot's snapshot with the current one", err)
	}
	seqs, more, err := outboxLog.Window(ctx, t.conn, t.cursor.A, b.snapshot, 0, t.maxRows())
	if err != nil {
		return err
	}
	if len(seqs) > 0 {
		t.cursor.B, t.cursor.LastSeq = b.snapshot, 0
		return t.publishWindow(ctx, seqs, more) // when it is closed, the next call finds no rows
	}
	// The window may have gone beyond the snapshot before Begin returned it. The stream delivers those
	// rows again.
	skip := map[int64]bool{}
	for last, more := int64(0), true; more; {
		if seqs, more, err = outboxLog.Window(ctx, t.conn, b.snapshot, t.cursor.A, last,
			t.maxRows()); err != nil {
			return err
		}
		for _, seq := range seqs {
			skip[seq], last = true, seq
		}
	}
	t.choice.started = nil
	t.startStreaming(b.stream)
	t.choice.stream.skip = skip
	// From this write on, a new leader resumes the stream. If it is lost in a crash, the new leader
	// goes on with the window, which publishes again what the stream has published since.
	t.cursor.Streamed = true
	return t.save(ctx, nil)
}

// fallBack goes on with the window after a stream has failed or cannot be resumed.
func (t *term) fallBack(ctx context.Context, err error) error {
	t.relay.Log.Warn().Err(err).Msg("the stream has failed, the relay uses the window")
	t.choice.nextCheck = time.Now().Add(streamRetry)
	return t.useWindow(ctx)
}

// useWindow goes on with the window from the last mark. Rows that the stream has published since
// then are published again.
func (t *term) useWindow(ctx context.Context) error {
	t.closeStreams()
	t.cursor.B, t.cursor.LastSeq, t.cursor.Streamed = t.cursor.A, 0, false
	return t.save(ctx, nil)
}

// closeStreams closes the stream in use, and one that has started but is not in use yet.
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
