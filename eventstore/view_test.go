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

// role creates a role, which is dropped at the end of the test.
func (s store) role() string {
	s.Helper()
	name := fmt.Sprintf("role_%016x", rand.Uint64())
	s.exec(`CREATE ROLE ` + name)
	s.Cleanup(func() { _, _ = s.Exec(`DROP OWNED BY ` + name + `; DROP ROLE ` + name) })
	return name
}

// propertiesSQL returns the properties of the view: owner, options, comment and grants.
const propertiesSQL = `SELECT relowner::regrole || ' ' || coalesce(reloptions::text,
	'') || ' ' || coalesce(obj_description(oid, 'pg_class'), '') || ' ' ||
	(SELECT string_agg(a.grantee::regrole || a.privilege_type || a.is_grantable, ','
		ORDER BY a.grantee, a.privilege_type) FROM aclexplode(relacl) AS a
			WHERE a.grantee <> relowner) || ' ' ||
	(SELECT string_agg(attname || attacl::text, ',') FROM pg_attribute WHERE attrelid = oid
		AND attacl IS NOT NULL)
	FROM pg_class WHERE relname = 'totals'`

// widened is the projection with other columns: one is missing, and the first one is new.
func widened() eventstore.Projection {
	type row struct {
		Extra   int64  `db:"extra"`
		Name    string `db:"name"`
		Version int64  `db:"version"`
	}
	return eventstore.Project(eventstore.Projection{
		Name: "totals", Key: "name", Version: 2, Facts: []events.Payload{added{}},
		Columns: `extra bigint NOT NULL, name text PRIMARY KEY, version bigint NOT NULL`,
	}, func(d eventstore.Decoded) []string { return []string{d.Data.Subject()} },
		func(rows *consumer.Rows[string, row], d eventstore.Decoded) {
			rows.Set(d.Data.Subject(), row{1, d.Data.Subject(), d.Version})
		})
}

// A rebuild keeps the owner, the grants, the options and the comment of the view, and the views
// that depend on it. If columns change, it keeps all but these dependent views.
func TestRebuildKeepsTheViewsGrantsAndDependents(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	p := s.projector(s.DB, totals(1, sumUp))
	reader, owner := s.role(), s.role()
	s.exec(`ALTER VIEW totals OWNER TO ` + owner + `; GRANT SELECT ON totals_1 TO ` + owner +
		`; GRANT SELECT ON totals TO ` + reader + ` WITH GRANT OPTION;
		GRANT SELECT (name) ON totals TO PUBLIC; COMMENT ON VIEW totals IS 'of all'; ALTER VIEW totals
			SET (security_barrier = true);
		CREATE VIEW report AS SELECT name, sum FROM totals`)
	properties := func() (text string) { must(t, s.Get(&text, propertiesSQL)); return text }
	before := properties()
	stop := s.run(p)
	s.grow("a", 5)
	s.waitCaughtUp()
	must(t, p.Rebuild(t.Context(), "totals"))
	s.waitFor("readers see the rebuilt projection", func() bool {
		return s.int(`SELECT generation
		FROM eventstore_projections WHERE live`) == 2
	})
	if after := properties(); after != before {
		t.Errorf("after the rebuild %s, before %s", after, before)
	}
	s.exec(`SET ROLE ` + reader + `; SELECT count(*) FROM totals; RESET ROLE`)
	if n := s.int(`SELECT sum FROM report`); n != 15 {
		t.Errorf("the view that depends on it shows %d", n)
	}
	stop()
	s.exec(`DROP VIEW report`)
	s.run(s.projector(s.DB, widened()))
	s.waitFor("readers see the changed projection", func() bool {
		return s.int(`SELECT generation
		FROM eventstore_projections WHERE live`) == 3
	})
	if after := properties(); after != before {
		t.Errorf("with other columns %s, before %s", after, before)
	}
}

// If the columns of a view change, the error names the view that depends on it. After that view is
// dropped, readers see the rebuilt projection.
func TestErrorNamesWhatDependsOnAChangedView(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.grow("a", 5)
	stop := s.run(s.projector(s.DB, totals(1, sumUp)))
	s.waitCaughtUp()
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
	_, err := p.Advance(t.Context(), lead, p.Projections[0], eventstore.LatestGeneration(t, p))
	if !errors.As(err, &blocked) {
		t.Errorf("error %v", err)
	}
	if n := s.int(`SELECT sum FROM report`); n != 15 {
		t.Errorf("the view that depends on it shows %d", n)
	}
	s.exec(`DROP VIEW report`)
	if _, err := p.Advance(t.Context(), lead, p.Projections[0], eventstore.LatestGeneration(t,
		p)); err != nil {
		t.Error(err)
	}
	if n := s.int(`SELECT extra FROM totals`); n != 1 {
		t.Error("readers do not see the rebuilt projection")
	}
	if n := s.int(`SELECT count(*) FROM raw`); n != 1 {
		t.Error("a table on which another view depends was dropped")
	}
}
