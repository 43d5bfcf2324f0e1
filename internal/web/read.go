package web

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/jmoiron/sqlx/reflectx"

	"github.com/quadrille-go/quadrille/fulfilment"
)

// Reader gives access to a database. quadrille.Service implements it.
type Reader interface {
	DB(ctx context.Context) (*sqlx.DB, error)
}

// Columns lists the columns for which T has fields, for a SELECT. An asterisk would also return
// columns that a later release adds, for which T has no field.
func Columns[T any]() string {
	var names []string
	for _, f := range reflectx.NewMapper("db").TypeMap(reflect.TypeFor[T]()).Index {
		if f.Field.Tag.Get("db") != "" && len(f.Index) == 1 {
			names = append(names, f.Name)
		}
	}
	return strings.Join(names, ", ")
}

// GetOne reads one row. It returns nil if there is none.
func GetOne[T any](ctx context.Context, from Reader, query string, args ...any) (*T, error) {
	db, err := from.DB(ctx)
	if err != nil {
		return nil, err
	}
	row := new(T)
	err = db.GetContext(ctx, row, query, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return row, nil
}

// GetAll reads rows; the result is never nil.
func GetAll[T any](ctx context.Context, from Reader, query string, args ...any) ([]T, error) {
	db, err := from.DB(ctx)
	if err != nil {
		return nil, err
	}
	rows := []T{}
	if err := db.SelectContext(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return rows, nil
}

// OrderID returns the order id of the path.
func OrderID(r *http.Request) (string, error) {
	id := r.PathValue("order")
	if err := fulfilment.CheckOrderID(id); err != nil {
		return "", Problemf(http.StatusBadRequest, "%s", err)
	}
	return id, nil
}

// Name returns a name from the path, such as that of a customer or a SKU.
func Name(r *http.Request, field string) (string, error) {
	name := r.PathValue(field)
	return name, Check(fulfilment.CheckName(field, name))
}

// Check joins the errors of the fields of a request into one Problem.
func Check(errs ...error) error { return Invalid(errors.Join(errs...)) }

// Page returns the parameter limit of a paged list, which also has the parameter after. It refuses
// parameters other than these two and more.
func Page(r *http.Request, usual, most int, more ...string) (limit int, err error) {
	known := append(more, "limit", "after")
	for name := range r.URL.Query() {
		if !slices.Contains(known, name) {
			return 0, Problemf(http.StatusBadRequest, "unknown parameter %.40q: use %s", name,
				strings.Join(known, ", "))
		}
	}
	text := r.URL.Query().Get("limit")
	if text == "" {
		return usual, nil
	}
	if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > most {
		return 0, Problemf(http.StatusBadRequest, "limit: must be between 1 and %d", most)
	}
	return limit, nil
}
