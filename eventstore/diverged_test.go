package eventstore_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// restores simulate the effects of a restore, or of a move to another cluster, on a database.
var restores = map[string]string{
	"from a busier cluster": `UPDATE eventstore SET txid = (txid::text::bigint + (1::bigint
		<< 33))::text::xid8; UPDATE eventstore_projections SET system = 'another'`,
	"from a younger cluster": `UPDATE eventstore SET txid = '7'; UPDATE eventstore_projections
		SET system = 'another', a = '9:9:', b = '9:9:'`,
	"without any projection": `UPDATE eventstore SET txid = (txid::text::bigint + (1::bigint
		<< 33))::text::xid8; DELETE FROM eventstore_projections; DROP TABLE totals_1 CASCADE`,
	"of the same cluster, earlier": `UPDATE eventstore_projections SET a = '9000000000:9000000000:',
		b = '9000000000:9000000000:'`,
	"some events of a clone": `UPDATE eventstore SET txid = (txid::text::bigint + (1::bigint
		<< 33))::text::xid8 WHERE version > 20`,
	"the store alone, earlier": `DELETE FROM eventstore WHERE version > 25;
		UPDATE eventstore_streams SET version = 25, hash = (SELECT hash FROM eventstore
			WHERE version = 25)`,
	"the store alone, as a new table": `ALTER TABLE eventstore RENAME
		TO old; CREATE TABLE eventstore (LIKE old INCLUDING ALL);
		INSERT INTO eventstore OVERRIDING SYSTEM VALUE SELECT * FROM old;
			SELECT setval(pg_get_serial_sequence('eventstore', 'seq'), 1000);
		UPDATE eventstore SET txid = '7' WHERE version > 20; DROP TABLE old`,
	"a table for reading was not restored": `DROP TABLE totals_1 CASCADE; UPDATE eventstore_projections
		SET system = 'another'`,
}

// logBuffer collects log output.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A database that was restored, or moved to another cluster, has other transaction ids. Projections
// nevertheless miss no fact and keep no rows of the past, whether replicas run meanwhile or not.
func TestProjectionsOfARestoredDatabaseAreRefilled(t *testing.T) {
	t.Parallel()
	for name, move := range restores {
		for _, running := range []bool{false, true} {
			t.Run(map[bool]string{false: "at start, ", true: "running, "}[running]+name, func(t *testing.T) {
				t.Parallel()
				s := newStore(t)
				logged := new(logBuffer)
				first := &eventstore.Projector{DB: s.DB, Projections: []eventstore.Projection{totals(1, sumUp)},
					Log: zerolog.New(logged)}
				must(t, first.Prepare(t.Context()))
				stop := s.run(first)
				s.fill("a", 30)
				s.waitCaughtUp()
				if !running {
					stop()
					s.fill("a", 10)
				}
				s.exec(move)
				if !running {
					must(t, first.Prepare(t.Context()))
					s.run(first)
				}
				s.waitFor("the leader resets the projections", func() bool {
					return strings.Contains(logged.String(), "do not match") && s.int(`SELECT count(*)
						FROM pg_views
						WHERE viewname = 'totals'`) == 1
				})
				s.fill("a", 10)
				s.waitCaughtUp()
				progress, err := first.Progress(t.Context())
				if must(t, err); len(progress) != 1 || progress[0].Note == "" &&
					!strings.Contains(move, "DROP TABLE totals_1") {
					t.Errorf("progress %+v does not mention the reset", progress)
				}
				// A table cannot be emptied while it is being read; then the leader tries again.
				if n := strings.Count(logged.String(), "do not match") - strings.Count(logged.String(),
					"projections pause"); n != 1 {
					t.Errorf("the projections were reset %d times:\n%s", n, logged)
				}
			})
		}
	}
}

// A reader with a checkpoint of another history gets ErrAhead.
func TestCheckpointAheadOfTheDatabaseIsAnError(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.grow("a", 3)
	const future = pg.Snapshot("9000000000:9000000000:")
	for _, checkpoint := range []eventstore.Checkpoint{{A: future, B: future},
		{A: "9:9:", B: future, LastSeq: 1}} {
		if _, _, err := eventstore.ReadAll(t.Context(), s, checkpoint); !errors.Is(err,
			eventstore.ErrAhead) {
			t.Errorf("error %v", err)
		}
	}
}
