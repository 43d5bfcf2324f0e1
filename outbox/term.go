package outbox

import (
	"context"
	"errors"
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
// The methods run on one goroutine, apart from those that background counts.
type term struct {
	state
	relay         *Relay
	lead          *pg.Lead
	conn          *sqlx.Conn // the database session that holds the lead
	publisher     *rabbit.Publisher
	heldCheckedAt time.Time      // the last time that no due held row was released
	savedAt       time.Time      // the last time that settleOldest saved the cursor
	inFlight      []pendingPart  // the oldest first
	background    sync.WaitGroup // goroutines that end with the term

	replayAt time.Time // the next time to look for a replay request

	choice choice
	stored cursor // the cursor as this term has last written it
	ctid   string // the physical address of its row; see cursor.update
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
	t.state, t.stored = state{cursor: c, suspects: r.suspects}, c
	if err := t.countHeld(ctx); err != nil {
		return err
	}
	r.Log.Info().Int64("epoch", c.Epoch).Int("held", t.heldCount).Msg("relay leads")
	t.background.Go(func() { r.retain(ctx, lead) })
	t.background.Go(func() { r.repairHeld(ctx, lead) })
	t.background.Go(func() { r.watchSnapshots(ctx) })
	if r.Database != "" {
		t.background.Go(func() { r.listen(ctx) })
	}
	defer t.closeStreams()
	defer t.background.Wait()
	defer stop() // deferred last, so that it ends the goroutines before Wait waits for them
	if err := t.resumeStream(ctx); err != nil {
		return err
	}
	err = t.run(ctx)
	r.suspects = t.suspects
	return err
}

// run publishes one window after another, or one batch of a stream after another, until the session
// or the lead is lost.
func (t *term) run(ctx context.Context) error {
	for {
		if err := t.heldAndReplays(ctx); err != nil {
			return err
		}
		if err := t.chooseSource(ctx); err != nil {
			return err
		}
		if t.choice.stream != nil {
			if err := t.streamStep(ctx); err != nil {
				return err
			}
			continue
		}
		seqs, more, err := t.nextWindow(ctx)
		if err != nil {
			return err
		}
		if len(seqs) == 0 {
			if err := wait(ctx, t.publisher, pollInterval, t.relay.Outbox.nudge); err != nil {
				return err
			}
			continue
		}
		if err := t.publishWindow(ctx, seqs, more); err != nil {
			return err
		}
	}
}

// heldAndReplays publishes the rows that come from neither a window nor a stream: held rows that
// are due, and the next batch of a replay.
func (t *term) heldAndReplays(ctx context.Context) error {
	if err := t.retryHeld(ctx); err != nil {
		return err
	}
	return t.replayNext(ctx)
}

// nextWindow returns the rows that are left of the open window. When no window is open (A equals
// B), it opens one whose right edge is the current snapshot. At most maxRows are returned; more
// reports that the window has further rows. While the broker is blocked or counts as broken it
// returns none.
func (t *term) nextWindow(ctx context.Context) (seqs []int64, more bool, err error) {
	if t.publisher.Blocked() || t.brokerBroken() {
		return nil, false, nil
	}
	if t.cursor.A == t.cursor.B {
		now, err := pg.Now(ctx, t.conn)
		if err != nil || now == t.cursor.A {
			return nil, false, err
		}
		seqs, more, err := outboxLog.Window(ctx, t.conn, t.cursor.A, now, 0, t.maxRows())
		if err != nil || len(seqs) == 0 {
			return nil, false, err
		}
		t.cursor.B, t.cursor.LastSeq = now, 0
		return seqs, more, nil
	}
	seqs, more, err = outboxLog.Window(ctx, t.conn, t.cursor.A, t.cursor.B, t.cursor.LastSeq,
		t.maxRows())
	if err == nil && len(seqs) == 0 { // an earlier term has settled all its rows
		t.closeWindow()
		err = t.save(ctx, nil)
	}
	return seqs, more, err
}

// save writes the cursor, and the held rows that it passes, in one transaction.
func (t *term) save(ctx context.Context, holds []heldRow) error {
	ctid, err := t.cursor.save(ctx, t.lead, t.ctid, holds)
	if err == nil {
		t.stored, t.ctid = t.cursor, ctid
	}
	return err
}

// errCursorReplaced ends a term; the next term begins with the stored cursor.
var errCursorReplaced = errors.New(
	"the row in outbox_cursor is not the one that this leader wrote: " +
		"was the database restored while the relay ran? " +
		"The relay starts again from the stored cursor")

// wantedSource reads which source an operator wants. It also compares the stored cursor with the
// one that this term has written: a restore under a running relay may bring back an old cursor
// under the same token, and no write would fail until the next event.
func (t *term) wantedSource(ctx context.Context) (wanted SourceName, err error) {
	var found struct {
		Source SourceName `db:"source"`
		Mine   bool       `db:"mine"`
	}
	c := t.stored
	err = t.conn.GetContext(ctx, &found, `SELECT source, epoch = $1 AND system = $2 AND a::text = $3
		AND b::text = $4 AND last_seq = $5 AS mine
		FROM outbox_cursor`, c.Epoch, c.System, string(c.A), string(c.B), c.LastSeq)
	if err != nil {
		return "", fmt.Errorf("read source: %w", err)
	}
	if !found.Mine {
		t.relay.anomalies.Add(1)
		return "", errCursorReplaced
	}
	return found.Source, nil
}

const outboxLog = pg.Log("outbox")

// maxRows bounds the rows of a window whose seqs are in memory.
func (t *term) maxRows() int {
	if t.relay.maxRows > 0 {
		return t.relay.maxRows
	}
	return windowMax
}

// unknownOutcome is the error that ends the term when the broker session ended with rows in flight.
func (t *term) unknownOutcome() error {
	if err := t.publisher.Err(); err != nil {
		return err
	}
	return errors.New("the broker session ended before all published events were confirmed")
}
