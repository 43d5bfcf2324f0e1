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

// Projection is a table for reading that is a function of the facts and of nothing else, so that it
// can be discarded and filled again. It lags behind the streams, in normal operation by one poll
// interval; a decision must therefore not depend on it. Project makes one.
type Projection struct {
	Name    string // of the view that readers select from
	Key     string // the column of its primary key, a text
	Columns string // as in CREATE TABLE: "customer text PRIMARY KEY, balance bigint NOT NULL"
	// Version must rise with every change of Columns or of the functions. The new version is then
	// built in another table, which replaces the one that readers see when it has caught up.
	Version int
	// Kinds are the kinds of the streams that the projection reads, as in StreamOf. If it is empty,
	// the projection reads all streams.
	Kinds []string
	// Facts has a sample of each type of event in those streams. The projection stops at an event of
	// another type, which a newer release has written and can handle.
	Facts []events.Payload

	apply apply
}

// Decoded is a fact that has been decoded.
type Decoded struct {
	Stream  string
	Version int64
	events.Event
}

// Project gives a projection the pure functions that fill it: keys returns the keys of the rows
// that a fact changes, and fold changes them. V is a struct whose fields are tagged `db:"column"`.
// The functions see the facts of one stream in its order, and those of different streams in the
// order of their commits.
func Project[V any](p Projection, keys func(Decoded) []string,
	fold func(rows *consumer.Rows[string, V], d Decoded)) Projection {
	p.apply = isolated(func(ctx context.Context, tx *sqlx.Tx, table string, batch []Decoded) error {
		rows := new(consumer.Rows[string, V])
		loader := rows.Table(table, p.Key)
		for _, d := range batch {
			for _, key := range keys(d) {
				rows.Lock(key)
			}
		}
		if loader.NeedsLoad() {
			if err := loader.Load(ctx, tx); err != nil {
				return err
			}
		}
		for _, d := range batch {
			fold(rows, d)
		}
		return loader.Save(ctx, tx)
	})
	return p
}

var projectionName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,40}$`)

// check returns an error if a projection is invalid.
func (p Projection) check() error {
	if !projectionName.MatchString(p.Name) || p.apply == nil || p.Version < 1 {
		return fmt.Errorf("projection %q: it needs a name of at most 41 lower-case letters, digits and "+
			"underscores, a version of at least 1, and its functions, which Project sets", p.Name)
	}
	return nil
}

// reads reports whether the projection reads a stream.
func (p Projection) reads(stream string) bool {
	kind, _, _ := strings.Cut(stream, "/")
	return len(p.Kinds) == 0 || slices.Contains(p.Kinds, kind)
}

// tableOf returns the name of the table of a generation of a projection.
func tableOf(name string, generation int) string { return fmt.Sprintf("%s_%d", name, generation) }
