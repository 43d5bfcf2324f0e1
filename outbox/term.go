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
	saved         time.Time // when the cursor was
	inFlight      []flight
	background    sync.WaitGroup // what the leader does beside publishing

	replayAt time.Time // the next look for requests

	choice choice
	stored cursor // as it was saved last
	ctid   string // of its row in the table
}

func (r *Relay) lead(ctx context.Context, publisher *rabbit.Publisher, lead *postgres.Lead) error {
	ctx, stop := lead.Keep(postgres.ByIndex(ctx))
	defer stop()
	p := &term{relay: r, lead: lead, conn: lead.Conn(), publisher: publisher}
	// Losing the last cursor to a crash of the server costs duplicates, not events: whatever edge is
	// found in the table afterwards was stored by a committed transaction. The window of a large
	// backlog takes its time to read, and would never be read under a time-out. The table of held rows
	// may have grown since the server last looked: its plans must not depend on that.
	if _, err := p.conn.ExecContext(ctx, `SET synchronous_commit = off; SET statement_timeout = 0;
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
	p.state, p.stored = state{cursor: c, oneByOne: r.oneByOne}, c
	if err := p.countHeld(ctx); err != nil {
		return err
	}
	r.Log.Info().Int64("epoch", c.Epoch).Int("held", p.held).Msg("relay leads")
	p.background.Go(func() { r.retain(ctx, lead) })
	p.background.Go(func() { r.repairHeld(ctx, lead) })
	p.background.Go(func() { r.watchSnapshots(ctx) })
	if r.Database != "" {
		p.background.Go(func() { r.listen(ctx) })
	}
	defer p.closeStreams()
	defer p.background.Wait()
	defer stop() // it ends them first
	if err := p.resume(ctx); err != nil {
		return err
	}
	err = p.run(ctx)
	r.oneByOne = p.oneByOne
	return err
}

// run relays one window after another until the session or the lead is lost.
func (p *term) run(ctx context.Context) error {
	for {
		if err := p.heldAndReplays(ctx); err != nil {
			return err
		}
		if err := p.chooseSource(ctx); err != nil {
			return err
		}
		if p.choice.stream != nil {
			if err := p.streamStep(ctx); err != nil {
				return err
			}
			continue
		}
		seqs, more, err := p.nextWindow(ctx)
		if err != nil {
			return err
		}
		if len(seqs) == 0 {
			if err := wait(ctx, p.publisher, pollInterval, p.relay.Outbox.nudge); err != nil {
				return err
			}
			continue
		}
		if err := p.window(ctx, seqs, more); err != nil {
			return err
		}
	}
}

// heldAndReplays publishes what is not of a window: held rows, and what an operator wants published
// again.
func (p *term) heldAndReplays(ctx context.Context) error {
	if err := p.retryHeld(ctx); err != nil {
		return err
	}
	return p.replay(ctx)
}

// nextWindow returns the rows that are left of a window that was begun before, or else those of the
// window up to now; more tells that there are others behind them. While the broker is blocked or
// counts as broken there is nothing to do.
func (p *term) nextWindow(ctx context.Context) (seqs []int64, more bool, err error) {
	if p.publisher.Blocked() || p.brokerBroken() {
		return nil, false, nil
	}
	if p.cursor.A == p.cursor.B {
		now, err := postgres.Now(ctx, p.conn)
		if err != nil || now == p.cursor.A {
			return nil, false, err
		}
		seqs, more, err := outboxLog.Window(ctx, p.conn, p.cursor.A, now, 0, p.maxRows())
		if err != nil || len(seqs) == 0 {
			return nil, false, err
		}
		p.cursor.B, p.cursor.LastSeq = now, 0
		return seqs, more, nil
	}
	seqs, more, err = outboxLog.Window(ctx, p.conn, p.cursor.A, p.cursor.B, p.cursor.LastSeq,
		p.maxRows())
	if err == nil && len(seqs) == 0 { // all of it was settled before: it only has to be closed
		p.finish()
		err = p.save(ctx, nil)
	}
	return seqs, more, err
}

// save writes the cursor with the holds that belong to it.
func (p *term) save(ctx context.Context, holds []hold) error {
	place, err := p.cursor.save(ctx, p.lead, p.ctid, holds)
	if err == nil {
		p.stored, p.ctid = p.cursor, place
	}
	return err
}

// errCursorReplaced ends a lead, and the next begins with the cursor that is there.
var errCursorReplaced = errors.New("the outbox's cursor is not the one that this leader has " +
	"written: was the database restored while it ran? " +
	"The relay begins again from the cursor that is there")

// wantedSource reads which source is wanted, and makes sure that the cursor is the one that this
// leader has written.
func (p *term) wantedSource(ctx context.Context) (wanted string, err error) {
	var found struct {
		Source string `db:"source"`
		Mine   bool   `db:"mine"`
	}
	c := p.stored
	err = p.conn.GetContext(ctx, &found, `SELECT source, epoch = $1 AND system = $2 AND a::text = $3
		AND b::text = $4 AND last_seq = $5 AS mine
		FROM outbox_cursor`, c.Epoch, c.System, string(c.A), string(c.B), c.LastSeq)
	if err != nil {
		return "", fmt.Errorf("read source: %w", err)
	}
	if !found.Mine {
		p.relay.anomalies.Add(1)
		return "", errCursorReplaced
	}
	return found.Source, nil
}

const outboxLog = postgres.Log("outbox")

// maxRows is how many rows of a window are taken into memory.
func (p *term) maxRows() int {
	if p.relay.most > 0 {
		return p.relay.most
	}
	return windowMax
}

// unknownOutcome ends a pump whose session ended with rows in flight.
func (p *term) unknownOutcome() error {
	if err := p.publisher.Err(); err != nil {
		return err
	}
	return errors.New("session ended with rows in flight")
}
