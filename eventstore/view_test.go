package eventstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
)

// role makes a role for the time of the test.
func (s store) role() string {
	s.Helper()
	name := fmt.Sprintf("role_%016x", rand.Uint64())
	s.exec(`CREATE ROLE ` + name)
	s.Cleanup(func() { _, _ = s.Exec(`DROP OWNED BY ` + name + `; DROP ROLE ` + name) })
	return name
}

// shared is what others have made of a view.
const sharedSQL = `SELECT relowner::regrole || ' ' || coalesce(reloptions::text,
	'') || ' ' || coalesce(obj_description(oid, 'pg_class'), '') || ' ' ||
	(SELECT string_agg(a.grantee::regrole || a.privilege_type || a.is_grantable, ','
		ORDER BY a.grantee, a.privilege_type) FROM aclexplode(relacl) AS a
			WHERE a.grantee <> relowner) || ' ' ||
	(SELECT string_agg(attname || attacl::text, ',') FROM pg_attribute WHERE attrelid = oid
		AND attacl IS NOT NULL)
	FROM pg_class WHERE relname = 'totals'`

// widened is a projection with other columns: one goes, one comes first.
func widened() eventstore.Projection {
	type row struct {
		Extra   int64  `db:"extra"`
		Name    string `db:"name"`
		Version int64  `db:"version"`
	}
	return eventstore.Project(eventstore.Projection{
		Name: "totals", Key: "name", Version: 2, Facts: []events.Payload{added{}},
		Columns: `extra bigint NOT NULL, name text PRIMARY KEY, version bigint NOT NULL`,
	}, func(h eventstore.Decoded) []string { return []string{h.Data.Subject()} },
		func(rows *consumer.Rows[string, row], h eventstore.Decoded) {
			rows.Set(h.Data.Subject(), row{1, h.Data.Subject(), h.Version})
		})
}

// A rebuild keeps what others have made of the view: owner, grants, options, comment, and views
// that depend on it; where columns change, all but the last.
func TestRebuildKeepsWhatOthersMadeOfTheView(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	p := s.projector(s.DB, totals(1, sumUp))
	reader, owner := s.role(), s.role()
	s.exec(`ALTER VIEW totals OWNER TO ` + owner + `; GRANT SELECT ON totals_1 TO ` + owner +
		`; GRANT SELECT ON totals TO ` + reader + ` WITH GRANT OPTION;
		GRANT SELECT (name) ON totals TO PUBLIC; COMMENT ON VIEW totals IS 'of all'; ALTER VIEW totals
			SET (security_barrier = true);
		CREATE VIEW report AS SELECT name, sum FROM totals`)
	shared := func() (text string) { must(t, s.Get(&text, sharedSQL)); return text }
	before := shared()
	stop := s.run(p)
	s.grow("a", 5)
	s.settled()
	must(t, p.Rebuild(t.Context(), "totals"))
	s.until("the rebuilt one is shown", func() bool {
		return s.int(`SELECT generation
		FROM eventstore_projections WHERE live`) == 2
	})
	if after := shared(); after != before {
		t.Errorf("after the rebuild %s, before %s", after, before)
	}
	s.exec(`SET ROLE ` + reader + `; SELECT count(*) FROM totals; RESET ROLE`)
	if n := s.int(`SELECT sum FROM report`); n != 15 {
		t.Errorf("the view that depends on it shows %d", n)
	}
	stop()
	s.exec(`DROP VIEW report`)
	s.run(s.projector(s.DB, widened()))
	s.until("the changed one is shown", func() bool {
		return s.int(`SELECT generation
		FROM eventstore_projections WHERE live`) == 3
	})
	if after := shared(); after != before {
		t.Errorf("with other columns %s, before %s", after, before)
	}
}

// What depends on a view whose columns change is named, with what to do; when it is gone, the
// rebuilt projection is shown.
func TestWhatDependsOnAChangedViewIsNamed(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	s.grow("a", 5)
	stop := s.run(s.projector(s.DB, totals(1, sumUp)))
	s.settled()
	stop()
	s.exec(`CREATE VIEW report AS SELECT name, sum FROM totals; CREATE VIEW raw AS SELECT name
		FROM totals_1`)
	p := s.projector(s.DB, widened())
	var blocked *eventstore.BlockedError
	if err := p.Rebuild(t.Context(), "totals"); !errors.As(err, &blocked) ||
		!strings.Contains(err.Error(), "view report depends on view totals") {
		t.Errorf("error %v", err)
	}
	lead := s.lead()
	_, err := p.Advance(t.Context(), lead, p.Projections[0], eventstore.Begun(t, p))
	if !errors.As(err, &blocked) {
		t.Errorf("error %v", err)
	}
	if n := s.int(`SELECT sum FROM report`); n != 15 {
		t.Errorf("the view that depends on it shows %d", n)
	}
	s.exec(`DROP VIEW report`)
	if _, err := p.Advance(t.Context(), lead, p.Projections[0], eventstore.Begun(t, p)); err != nil {
		t.Error(err)
	}
	if n := s.int(`SELECT extra FROM totals`); n != 1 {
		t.Error("it is not shown")
	}
	if n := s.int(`SELECT count(*) FROM raw`); n != 1 {
		t.Error("a table that others use is gone")
	}
}
