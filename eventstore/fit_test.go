package eventstore_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/postgres"
)

// moves are what a restore, or a move to another cluster, makes of a database.
var moves = map[string]string{
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

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A database that was restored, or moved to another cluster, has other transaction ids: no fact
// stays behind for that, and no projection is left with half of them, whether replicas run
// meanwhile or not.
func TestProjectionsOfARestoredDatabaseBeginAgain(t *testing.T) {
	t.Parallel()
	for name, move := range moves {
		for _, running := range []bool{false, true} {
			t.Run(map[bool]string{false: "at start, ", true: "running, "}[running]+name, func(t *testing.T) {
				t.Parallel()
				s := fresh(t)
				out := new(lines)
				first := &eventstore.Projector{DB: s.DB, Projections: []eventstore.Projection{totals(1, sumUp)},
					Log: zerolog.New(out)}
				must(t, first.Prepare(t.Context()))
				stop := s.run(first)
				s.fill("a", 30)
				s.settled()
				if !running {
					stop()
					s.fill("a", 10)
				}
				s.exec(move)
				if !running {
					must(t, first.Prepare(t.Context()))
					s.run(first)
				}
				s.until("it is noticed", func() bool {
					return strings.Contains(out.String(), "do not fit") && s.int(`SELECT count(*) FROM pg_views
						WHERE viewname = 'totals'`) == 1
				})
				s.fill("a", 10)
				s.settled()
				progress, err := first.Progress(t.Context())
				if must(t, err); len(progress) != 1 || progress[0].Note == "" &&
					!strings.Contains(move, "DROP TABLE totals_1") {
					t.Errorf("progress %+v tells nothing of it", progress)
				}
				// While somebody reads a table it cannot be emptied, and that is tried again.
				if n := strings.Count(out.String(), "do not fit") - strings.Count(out.String(),
					"projections pause"); n != 1 {
					t.Errorf("they began again %d times:\n%s", n, out)
				}
			})
		}
	}
}

// A reader of its own that comes with a place of another history is told so.
func TestCheckpointAheadOfTheDatabaseIsAnError(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	s.grow("a", 3)
	const far = postgres.Snapshot("9000000000:9000000000:")
	for _, place := range []eventstore.Checkpoint{{A: far, B: far}, {A: "9:9:", B: far, LastSeq: 1}} {
		if _, _, err := eventstore.ReadAll(t.Context(), s, place); !errors.Is(err, eventstore.ErrAhead) {
			t.Errorf("error %v", err)
		}
	}
}
