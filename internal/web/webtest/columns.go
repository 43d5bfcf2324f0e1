package webtest

import "fmt"

// AddColumns adds a column to every table and its views, as the migration of a later release may do
// while this release runs.
func (s *Service) AddColumns() {
	s.Helper()
	var tables []string
	err := s.DB.SelectContext(s.Context(), &tables, `SELECT quote_ident(relname) FROM pg_class
		WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
			AND NOT relispartition`)
	if err != nil || len(tables) == 0 {
		s.Fatalf("%d tables: %v", len(tables), err)
	}
	for _, table := range tables {
		if _, err := s.DB.ExecContext(s.Context(), `ALTER TABLE `+table+
			` ADD COLUMN of_a_later_release text NOT NULL DEFAULT ''`); err != nil {
			s.Fatalf("%s: %v", table, err)
		}
	}
	var shown []struct{ View, Table string }
	err = s.DB.SelectContext(s.Context(), &shown, `SELECT DISTINCT quote_ident(v.relname) AS view,
		quote_ident(t.relname) AS "table"
		FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid JOIN pg_class AS v
			ON v.oid = r.ev_class AND v.relkind = 'v'
		JOIN pg_class AS t ON t.oid = d.refobjid AND t.relkind = 'r'
		WHERE d.classid = 'pg_rewrite'::regclass AND v.relnamespace = current_schema()::regnamespace`)
	if err != nil {
		s.Fatal(err)
	}
	for _, v := range shown {
		view := fmt.Sprintf(`CREATE OR REPLACE VIEW %s AS SELECT * FROM %s`, v.View, v.Table)
		if _, err := s.DB.ExecContext(s.Context(), view); err != nil {
			s.Fatalf("%s: %v", v.View, err)
		}
	}
}
