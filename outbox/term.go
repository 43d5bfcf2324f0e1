package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/postgres"
	"github.com/quadrille-go/quadrille/rabbit"
)

// term is one lead in one session.
type term struct {
	state
	relay         *Relay
	lead          *postgres.Lead
	conn          *sqlx.Conn // its session
	publisher     *rabbit.Publisher
	heldCheckedAt time.Time
	savedAt       time.Time // when the cursor was
	inFlight      []pendingPart
	background    sync.WaitGroup // what the leader does beside publishing

	replayAt time.Time // the next look for requests

	choice choice
	stored cursor // as it was saved last
	ctid   string // of its row in the table
}

func (r *Relay) lead(ctx context.Context, publisher *rabbit.Publisher, lead *postgres.Lead) error {
	ctx, stop := lead.Keep(postgres.ByIndex(ctx))
	defer stop()
	t := &term{relay: r, lead: lead, conn: lead.Conn(), publisher: publisher}
	// Losing the last cursor to a crash of the server costs duplicates, not events: whatever edge is
	// found in the table afterwards was stored by a committed transaction. The window of a large
	// backlog takes its time to read, and would never be read under a time-out. The table of held rows
	// may have grown since the server last looked: its plans must not depend on that.
	if _, err := t.conn.ExecContext(ctx, `SET synchronous_commit = off; SET statement_timeout = 0;
		SET enable_seqscan = off`); err != nil {
		return fmt.Errorf("prepare lead: %w", err)
	}
	c, err := takeCursor(ctx, lead)
	if err != nil {
		return err
	}
	if c.fitted {
		r.Log.Warn().Msg("the database was restored, copied or moved: the outbox was made to fit, and " +
			"what the backup had not seen published is published")
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
	defer stop() // it ends them first
	if err := t.resumeStream(ctx); err != nil {
		return err
	}
	err = t.run(ctx)
	r.suspects = t.suspects
	return err
}

// run relays one window after another until the session or the lead is lost.
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

// heldAndReplays publishes what is not of a window: held rows, and what an operator wants published
// again.
func (t *term) heldAndReplays(ctx context.Context) error {
	if err := t.retryHeld(ctx); err != nil {
		return err
	}
	return t.replayNext(ctx)
}

// nextWindow returns the rows that are left of a window that was begun before, or else those of the
// window up to now; more tells that there are others behind them. While the broker is blocked or
// counts as broken there is nothing to do.
func (t *term) nextWindow(ctx context.Context) (seqs []int64, more bool, err error) {
	if t.publisher.Blocked() || t.brokerBroken() {
		return nil, false, nil
	}
	if t.cursor.A == t.cursor.B {
		now, err := postgres.Now(ctx, t.conn)
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
	if err == nil && len(seqs) == 0 { // all of it was settled before: it only has to be closed
		t.closeWindow()
		err = t.save(ctx, nil)
	}
	return seqs, more, err
}

// save writes the cursor with the holds that belong to it.
func (t *term) save(ctx context.Context, holds []heldRow) error {
	place, err := t.cursor.save(ctx, t.lead, t.ctid, holds)
	if err == nil {
		t.stored, t.ctid = t.cursor, place
	}
	return err
}

// errCursorReplaced ends a lead, and the next begins with the cursor that is there.
var errCursorReplaced = errors.New("the outbox's cursor is not the one that this leader has " +
	"written: was the database restored while it ran? " +
	"The relay begins again from the cursor that is there")

// wantedSource reads which source is wanted, and makes sure that the cursor is the one that this
// leader has written.
func (t *term) wantedSource(ctx context.Context) (wanted string, err error) {
	var found struct {
		Source string `db:"source"`
		Mine   bool   `db:"mine"`
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

const outboxLog = postgres.Log("outbox")

// maxRows is how many rows of a window are taken into memory.
func (t *term) maxRows() int {
	if t.relay.maxRows > 0 {
		return t.relay.maxRows
	}
	return windowMax
}

// unknownOutcome ends a pump whose session ended with rows in flight.
func (t *term) unknownOutcome() error {
	if err := t.publisher.Err(); err != nil {
		return err
	}
	return errors.New("session ended with rows in flight")
}
