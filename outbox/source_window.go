package outbox

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/internal/pg"
)

const outboxLog = pg.Log("outbox")

// position is the part of the cursor that a source moves. Every row that is visible in snapshot
// A is settled; of the rows that are visible in B but not in A (the open window) those up to
// LastSeq are. No window is open when A equals B.
type position struct {
	A       pg.Snapshot `db:"a"`
	B       pg.Snapshot `db:"b"`
	LastSeq int64       `db:"last_seq"`

	// Streamed says that a stream delivers the rows. Its own checkpoint then says how far it has come,
	// and A is a snapshot behind that checkpoint, from which a window can go on.
	Streamed bool `db:"streamed"`
}

// source delivers the committed rows that are not settled, each with a running number that begins
// at 1. A window and a stream are the two of them. It is for one goroutine.
type source interface {
	// next returns the next rows, at most chunkSize. When there are none yet it may wait for them,
	// until a nudge or for pollInterval; with mayWait unset it returns at once.
	next(ctx context.Context, mayWait bool) ([]row, error)
	// checkpoint says that all rows up to a number are settled, and returns the position from which
	// a later term can go on.
	checkpoint(number int64) position
	// stored says that the changes of those rows are in the database, so that they need not be
	// delivered again.
	stored()
	close()
}

// window reads the rows between two snapshots of the database. When all of them are settled, the
// right edge becomes the left edge of the next window.
type window struct {
	conn    *sqlx.Conn
	fetch   func(ctx context.Context, seqs []int64) ([]row, error)
	wait    func(ctx context.Context) error // until a nudge, or for pollInterval
	maxRows int                             // whose seqs are in memory
	at      position
	seqs    []int64 // of the open window, or of a part of it
	more    bool    // the open window has rows after seqs
	chunks  *chunks // of seqs; nil: they are not read
	last    int64   // the number of the last row that was delivered
	settled int64   // the number of the last row that is settled
	before  int64   // the number of the row before seqs
}

// next returns the next rows of the open window, or opens a window whose right edge is the current
// snapshot. It opens none, and reads no further part of a large one, before all rows that it has
// delivered are settled.
func (w *window) next(ctx context.Context, mayWait bool) ([]row, error) {
	if w.chunks == nil && w.settled == w.last {
		if err := w.open(ctx, ""); err != nil {
			return nil, err
		}
	}
	if w.chunks == nil {
		if mayWait {
			return nil, w.wait(ctx)
		}
		return nil, nil
	}
	rows, err := w.chunks.next(ctx)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		w.last++
		rows[i].number = w.last
	}
	if w.last == w.before+int64(len(w.seqs)) {
		w.chunks.stop()
		w.chunks = nil
	}
	return rows, nil
}

// open reads the seqs of the open window, or opens one up to a snapshot, the current one if it is
// empty. A window without rows is not opened, and one whose rows are all settled is closed.
func (w *window) open(ctx context.Context, until pg.Snapshot) (err error) {
	if w.at.A != w.at.B { // an earlier term has opened it, or it has further rows
		until = w.at.B
	} else if until == "" {
		if until, err = pg.Now(ctx, w.conn); err != nil || until == w.at.A {
			return err
		}
	}
	seqs, more, err := outboxLog.Window(ctx, w.conn, w.at.A, until, w.at.LastSeq, w.maxRows)
	if err != nil {
		return err
	}
	if len(seqs) == 0 {
		if w.at.A != w.at.B {
			w.at.A, w.at.LastSeq = w.at.B, 0
		}
		return nil
	}
	w.at.B, w.seqs, w.more, w.before = until, seqs, more, w.last
	w.chunks = readChunks(ctx, seqs, w.fetch)
	return nil
}

// isOpen reports whether some rows of a window are not settled.
func (w *window) isOpen() bool { return w.at.A != w.at.B }

func (w *window) checkpoint(number int64) position {
	if number > w.settled {
		w.settled = number
		w.at.LastSeq = w.seqs[number-w.before-1]
	}
	if w.isOpen() && w.settled == w.before+int64(len(w.seqs)) && !w.more && w.chunks == nil {
		w.at.A, w.at.LastSeq = w.at.B, 0
	}
	return w.at
}

// stored does nothing: the position of a window is stored together with the changes.
func (w *window) stored() {}

func (w *window) close() {
	if w.chunks != nil {
		w.chunks.stop()
		w.chunks = nil
	}
}

// chunks reads rows in chunks, one chunk ahead of its user.
type chunks struct {
	read chan chunk
	stop func() // waits for the goroutine, which must not outlive the term
}

// chunk is the result of one read.
type chunk struct {
	rows []row
	err  error
}

// readChunks begins to read the rows of these seqs. The caller calls stop in the end.
func readChunks(ctx context.Context, seqs []int64,
	fetch func(ctx context.Context, seqs []int64) ([]row, error)) *chunks {
	c := &chunks{read: make(chan chunk, 1), stop: func() {}}
	if len(seqs) <= chunkSize { // a quiet outbox has one chunk: a goroutine would only cost time
		rows, err := fetch(ctx, seqs)
		c.read <- chunk{rows, err}
		return c
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(c.read)
		for part := range slices.Chunk(seqs, chunkSize) {
			rows, err := fetch(ctx, part)
			select {
			case c.read <- chunk{rows, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	c.stop = func() {
		cancel()
		for range c.read { // until the goroutine has closed it
		}
	}
	return c
}

func (c *chunks) next(ctx context.Context) ([]row, error) {
	select {
	case read, ok := <-c.read:
		if !ok {
			return nil, fmt.Errorf("read the outbox: %w", context.Cause(ctx))
		}
		return read.rows, read.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
