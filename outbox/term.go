package outbox

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// term is the time in which one relay leads: from the moment it has the lead until it loses the
// lead, its database session or its broker session.
//
// Everything that follows from the stored cursor lives here, and the next term reads it from the
// database again. After a crash PostgreSQL assigns those transaction ids again whose log records
// were not on disk. A relay that kept its cursor in memory across the crash would count them as
// settled, and skip the rows that are then written under them.
//
// Every row takes one way: the source, the held rows that are due, and a replay each make attempts;
// send publishes them and puts them into the queue; settle awaits their results and writes what
// they change. The methods run on one goroutine, apart from those that background counts.
type term struct {
	state
	relay         *Relay
	lead          *pg.Lead
	conn          *sqlx.Conn // the database session that holds the lead
	publisher     *rabbit.Publisher
	source        source
	streams       streams
	cursor        cursor         // what is to be stored
	stored        cursor         // what this term has stored last
	ctid          string         // the physical address of its row; see cursor.update
	savedAt       time.Time      // when it was stored last
	heldCheckedAt time.Time      // the last time that no due held row was released
	replay        replay         // the request whose rows are in the queue
	background    sync.WaitGroup // goroutines that end with the term
}

// lead runs one term.
func (r *Relay) lead(ctx context.Context, publisher *rabbit.Publisher, lead *pg.Lead) error {
	ctx, stop := lead.Keep(pg.ByIndex(ctx))
	defer stop()
	t := &term{relay: r, lead: lead, conn: lead.Conn(), publisher: publisher}
	// The last cursor need not survive a crash of the server. An older one costs duplicates, not
	// events: it was stored by a committed transaction too, so its snapshots are valid. Reading the
	// window of a large backlog may take long, and a timeout would make the relay begin the same read
	// again and again. The plans on outbox_held must use its indexes even while the server's
	// statistics say that the table is empty.
	if _, err := t.conn.ExecContext(ctx, `SET synchronous_commit = off; SET statement_timeout = 0;
		SET enable_seqscan = off`); err != nil {
		return fmt.Errorf("prepare lead: %w", err)
	}
	c, err := takeCursor(ctx, lead)
	if err != nil {
		return err
	}
	if c.fitted {
		r.Log.Warn().Msg("the database was restored, copied or moved: the outbox cursor was rebased, " +
			"and the relay now publishes every event that the backup does not know as published")
	}
	if r.suspects == nil {
		r.suspects = map[int64]bool{}
	}
	t.state, t.cursor, t.stored = newState(r.suspects), c, c
	if t.heldCount, t.refusedCount, err = countHeld(ctx, t.conn); err != nil {
		return err
	}
	r.held.Store(int64(t.heldCount))
	r.Log.Info().Int64("epoch", c.Epoch).Int("held", t.heldCount).Msg("relay leads")
	t.background.Go(func() { r.retain(ctx, lead) })
	t.background.Go(func() { r.repairHeld(ctx, lead) })
	t.background.Go(func() { r.watchSnapshots(ctx) })
	if r.Database != "" {
		t.background.Go(func() { r.listen(ctx) })
	}
	defer t.closeSources()
	defer func() { endSpans(t.queue, errUnsettled) }()
	defer t.background.Wait()
	defer stop() // deferred last, so that it ends the goroutines before Wait waits for them
	if err := t.firstSource(ctx); err != nil {
		return err
	}
	for {
		if err := t.step(ctx); err != nil {
			return err
		}
	}
}

// step publishes the next rows of each origin, and settles old attempts when the queue is full or
// nothing is left to publish. One batch of held rows and one of a replay are in the queue at most,
// so that any number of them does not delay new rows.
func (t *term) step(ctx context.Context) error {
	if err := t.publisher.Err(); err != nil {
		return t.sessionLost(ctx, err)
	}
	if err := t.chooseSource(ctx); err != nil {
		return err
	}
	var rows []row
	if t.accepts() {
		if err := t.retryHeld(ctx); err != nil {
			return err
		}
	}
	if t.accepts() && !t.brokerBroken() {
		if err := t.replayNext(ctx); err != nil {
			return err
		}
		var err error
		if rows, err = t.source.next(ctx, len(t.queue) == 0); err != nil {
			return t.sourceLost(ctx, err)
		}
	} else if len(t.queue) == 0 {
		if err := t.wait(ctx); err != nil {
			return err
		}
	}
	if len(rows) == 0 {
		return t.settle(ctx, len(t.queue))
	}
	if err := t.settle(ctx, len(t.queue)+len(rows)-maxQueue); err != nil {
		return err
	}
	return t.publishRows(ctx, rows)
}

// accepts reports whether the broker accepts messages now.
func (t *term) accepts() bool { return !t.publisher.Blocked() }

// wait waits for a nudge, or for pollInterval.
func (t *term) wait(ctx context.Context) error {
	return wait(ctx, t.publisher, pollInterval, t.relay.Outbox.nudge)
}

// apply writes what settled attempts change, together with the cursor that passes them.
func (t *term) apply(ctx context.Context, c changes) error {
	t.cursor.position = t.source.checkpoint(t.settled)
	// Within a window the stored cursor only decides how many events are published twice after
	// a crash. Publishing pauses while it is saved, so it is saved once in saveInterval.
	closed, advanced := t.cursor.A != t.stored.A, t.cursor.LastSeq != t.stored.LastSeq
	if !c.empty() || closed || advanced && time.Since(t.savedAt) > saveInterval {
		if err := t.save(ctx, c); err != nil {
			return err
		}
	}
	t.source.stored()
	t.relay.published.Add(c.published)
	if c.retried {
		t.heldCheckedAt = time.Now()
		if len(c.released) > 0 {
			t.heldCheckedAt = time.Time{} // the rows behind them are due at once
		}
		var err error
		if t.refusedCount, err = countRefused(ctx, t.conn); err != nil {
			return err
		}
	}
	t.logHeld(c.holds)
	return nil
}

// save writes changes and the cursor in one transaction: a crash must not leave a row released and
// the rows behind it without a schedule, or the cursor behind a row that is not held yet.
func (t *term) save(ctx context.Context, c changes) (err error) {
	ctid := ""
	if c.empty() {
		ctid, err = t.cursor.update(ctx, t.conn, t.ctid)
	} else {
		err = t.lead.Tx(ctx, func(tx pg.Fenced) error {
			if ctid, err = t.cursor.update(ctx, tx.Tx(), t.ctid); err != nil {
				return err
			}
			if err := writeHolds(ctx, tx, c.holds); err != nil {
				return err
			}
			if err := release(ctx, tx, c.released); err != nil {
				return err
			}
			return t.replay.save(ctx, tx, c.replayed)
		})
		err = wrap("save cursor", err)
	}
	if err == nil {
		t.stored, t.ctid, t.savedAt = t.cursor, ctid, time.Now()
	}
	return err
}

// logHeld logs rows that were held because of their own result. Rows that wait for an earlier row
// are not logged, and all rows that are retried share one line: a broken broker refuses thousands.
func (t *term) logHeld(holds []heldRow) {
	t.relay.held.Store(int64(t.heldCount))
	failed, last := 0, heldRow{}
	for _, h := range holds {
		switch {
		case h.kind == quarantined:
			t.relay.Log.Error().Int64("seq", h.seq).Str("subject", h.aggregate).
				Str("reason", h.reason).Msg("event quarantined: it cannot be published as it is; " +
				"repair the cause, then replay the event")
		case h.attempts > 0:
			failed, last = failed+1, h
		}
	}
	if failed > 0 {
		t.relay.Log.Warn().Int("events", failed).Int("held", t.heldCount).Int64("seq", last.seq).
			Str("subject", last.aggregate).Str("reason", last.reason).
			Msg("events held, they are published again later")
	}
}
