package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// The bounds of the choice between the window and a stream.
const (
	chooseInterval = time.Second     // between two reads of the wanted source
	streamRetry    = 5 * time.Second // after a stream has failed
	slotInterval   = 5 * time.Second // between two checks of the slot
)

// streams is what a term knows of the stream that may take the place of the window. The path from
// the window to a stream is starting, then started, then current; see handOver.
type streams struct {
	nextCheck     time.Time
	starting      chan streamStart // the result of Source.Begin; nil when none is running
	started       *streamStart     // the window must reach its snapshot before the stream is used
	current       *streaming       // in use; nil: the window is
	slotDropped   bool             // there is no slot that an earlier use of the stream has left
	slotCheckedAt time.Time
}

// streamStart is the result of Source.Begin: a stream, and the snapshot after which it begins.
type streamStart struct {
	stream   Stream
	snapshot pg.Snapshot
	err      error
}

// firstSource begins with the source that the last leader has used. When its stream cannot be
// resumed, the window goes on from the last mark.
func (t *term) firstSource(ctx context.Context) error {
	t.useSource(t.newWindow())
	if !t.cursor.Streamed {
		return nil
	}
	err := errors.New("this replica has no Source")
	if t.relay.Source != nil {
		var stream Stream
		if stream, err = t.relay.Source.Resume(ctx); err == nil {
			t.useStream(stream, nil)
			return nil
		}
	}
	return t.fallBack(ctx, err)
}

func (t *term) newWindow() *window {
	most := t.relay.maxRows
	if most == 0 {
		most = windowMax
	}
	return &window{conn: t.conn, at: t.cursor.position, fetch: t.relay.windowRows, wait: t.wait,
		maxRows: most}
}

// useSource makes a source the one in use. The numbers of its rows begin at 1, so the queue must
// not have rows of another one.
func (t *term) useSource(s source) { t.source, t.settled = s, 0 }

// useStream makes the stream the source in use.
func (t *term) useStream(s Stream, skip map[int64]bool) {
	t.streams.current = &streaming{Stream: s, conn: t.conn, at: t.cursor.A, unmarked: true, skip: skip}
	t.streams.slotDropped = false
	t.useSource(t.streams.current)
	t.relay.streaming.Store(true)
	t.relay.Log.Info().Msg("relay streams")
}

// chooseSource reads once in chooseInterval which source is wanted, and starts or leaves a stream
// accordingly. Source.Begin runs in the background, because it waits for running transactions while
// the window must go on.
func (t *term) chooseSource(ctx context.Context) error {
	c := &t.streams
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
	switch {
	case c.started != nil:
		return t.handOver(ctx)
	case c.current != nil && c.current.left:
		return t.leaveStream(ctx)
	case time.Now().Before(c.nextCheck):
		return nil
	}
	c.nextCheck = time.Now().Add(chooseInterval)
	wanted, err := t.wantedSource(ctx)
	if err != nil {
		return err
	}
	if c.current != nil { // it is left when it has reached a mark
		c.current.leaving = wanted != FromStream
		return t.checkSlot(ctx)
	}
	t.prepareStream(ctx, wanted)
	return nil
}

// prepareStream starts the stream if it is wanted, and otherwise drops its slot, since the server
// need not keep its log.
func (t *term) prepareStream(ctx context.Context, wanted SourceName) {
	c, source := &t.streams, t.relay.Source
	switch {
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
	case !c.slotDropped:
		if err := source.Drop(ctx); err != nil {
			t.relay.Log.Warn().Err(err).Msg("the replication slot of the stream cannot be dropped, the " +
				"relay tries again")
			return
		}
		c.slotDropped = true
	}
}

// checkSlot warns before the server gives up the slot because its log has grown too large, and
// leaves a stream whose slot has a fault, such as one for which every commit would wait.
func (t *term) checkSlot(ctx context.Context) error {
	if time.Since(t.streams.slotCheckedAt) < slotInterval {
		return nil
	}
	t.streams.slotCheckedAt = time.Now()
	slot, err := t.relay.Source.State(ctx)
	if err != nil {
		return nil // if the server has a fault, the stream reports it
	}
	if slot.Fault != nil {
		return t.sourceLost(ctx, streamError{slot.Fault})
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
	w, ok := t.source.(*window)
	if !ok || w.isOpen() || !t.accepts() || t.brokerBroken() {
		return nil // the open window must be closed first
	}
	if err := t.settle(ctx, len(t.queue)); err != nil {
		return err
	}
	b := t.streams.started
	var visible bool
	if err := t.conn.GetContext(ctx, &visible, slotVisibleSQL,
		string(b.snapshot)); err != nil || !visible {
		return wrap("compare the slot's snapshot with the current one", err)
	}
	if err := w.open(ctx, b.snapshot); err != nil || w.isOpen() {
		return err // step publishes its rows; when it is closed, the next call finds none
	}
	// The window may have gone beyond the snapshot before Begin returned it. The stream delivers those
	// rows again.
	skip := map[int64]bool{}
	for last, more := int64(0), true; more; {
		var seqs []int64
		var err error
		if seqs, more, err = outboxLog.Window(ctx, t.conn, b.snapshot, t.cursor.A, last,
			w.maxRows); err != nil {
			return err
		}
		for _, seq := range seqs {
			skip[seq], last = true, seq
		}
	}
	t.streams.started = nil
	t.useStream(b.stream, skip)
	// From this write on, a new leader resumes the stream. If it is lost in a crash, the new leader
	// goes on with the window, which publishes again what the stream has published since.
	t.cursor.Streamed = true
	return t.save(ctx, changes{})
}

// leaveStream goes on with the window, at an operator's wish, when the stream has reached a mark.
func (t *term) leaveStream(ctx context.Context) error {
	if err := t.settle(ctx, len(t.queue)); err != nil {
		return err
	}
	t.relay.Log.Info().Msg("relay stops streaming and uses the window")
	return t.useWindow(ctx)
}

// sourceLost goes on with the window if err is one of the stream.
func (t *term) sourceLost(ctx context.Context, err error) error {
	var lost streamError
	if !errors.As(err, &lost) {
		return err
	}
	if err := t.settle(ctx, len(t.queue)); err != nil {
		return err
	}
	return t.fallBack(ctx, lost.error)
}

// fallBack goes on with the window after a stream has failed or cannot be resumed.
func (t *term) fallBack(ctx context.Context, err error) error {
	t.relay.Log.Warn().Err(err).Msg("the stream has failed, the relay uses the window")
	t.streams.nextCheck = time.Now().Add(streamRetry)
	return t.useWindow(ctx)
}

// useWindow goes on with the window from the last mark. Rows that the stream has published since
// then are published again.
func (t *term) useWindow(ctx context.Context) error {
	t.closeSources()
	t.cursor.B, t.cursor.LastSeq, t.cursor.Streamed = t.cursor.A, 0, false
	t.useSource(t.newWindow())
	return t.save(ctx, changes{})
}

// closeSources closes the source in use, and a stream that has started but is not in use yet.
func (t *term) closeSources() {
	c := &t.streams
	if t.source != nil {
		t.source.close()
	}
	c.current = nil
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
