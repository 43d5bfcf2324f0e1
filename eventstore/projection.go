package eventstore

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// Projection is a table for reading that is a function of the facts, and of nothing else: it can be
// thrown away and filled again. It runs behind the streams, by its poll at most when nothing is
// wrong; whoever decides must not read it. Project makes one.
type Projection struct {
	Name    string // of the view that readers select from
	Key     string // the column of its primary key, a text
	Columns string // as in CREATE TABLE: "customer text PRIMARY KEY, balance bigint NOT NULL"
	// Version is raised with every change of Columns or of what the projection makes of a fact: it is
	// built again beside the one that readers see, which is replaced when it has caught up.
	Version int
	// Kinds of the streams that it reads, as in StreamOf; without any it reads all streams.
	Kinds []string
	// Facts are a sample of each type of event in those streams. It stands still at any other: a newer
	// release has written it, and knows what is to be made of it.
	Facts []events.Payload

	apply apply
}

// Decoded is a fact that has been decoded.
type Decoded struct {
	Stream  string
	Version int64
	events.Event
}

// Project gives a projection the pure functions that fill it: keys names the rows that a fact is
// about, and fold changes them. V is a struct whose fields are tagged `db:"column"`. Both see
// the facts of one stream in their order, and those of two streams in that of their commits.
func Project[V any](p Projection, keys func(Decoded) []string,
	fold func(rows *consumer.Rows[string, V], h Decoded)) Projection {
	p.apply = alone(func(ctx context.Context, tx *sqlx.Tx, table string, batch []Decoded) error {
		rows := new(consumer.Rows[string, V])
		rows.Bind(table, p.Key)
		for _, h := range batch {
			for _, key := range keys(h) {
				rows.Lock(key)
			}
		}
		if rows.NeedsLoad() {
			if err := rows.Load(ctx, tx); err != nil {
				return err
			}
		}
		for _, h := range batch {
			fold(rows, h)
		}
		return rows.Save(ctx, tx)
	})
	return p
}

var projectionName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,40}$`)

// check refuses a projection that cannot be one.
func (p Projection) check() error {
	if !projectionName.MatchString(p.Name) || p.apply == nil || p.Version < 1 {
		return fmt.Errorf("projection %q: it needs a name of at most 41 lower-case letters, digits and "+
			"underscores, a version from 1 on, and to be made by Project", p.Name)
	}
	return nil
}

// reads tells whether it reads the streams of a kind.
func (p Projection) reads(stream string) bool {
	kind, _, _ := strings.Cut(stream, "/")
	return len(p.Kinds) == 0 || slices.Contains(p.Kinds, kind)
}

// tableOf is the table that a generation of a projection fills.
func tableOf(name string, generation int) string { return fmt.Sprintf("%s_%d", name, generation) }
