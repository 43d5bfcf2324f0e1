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

	"github.com/quadrille-go/quadrille/events/fulfilment"
)

// Reader is what has a database to read: a quadrille.Service.
type Reader interface {
	DB(ctx context.Context) (*sqlx.DB, error)
}

// Columns lists the columns that T has fields for, as a SELECT names them. An asterisk would also
// return the columns that a later release has added, which T has no place for.
func Columns[T any]() string {
	var names []string
	for _, f := range reflectx.NewMapper("db").TypeMap(reflect.TypeFor[T]()).Index {
		if f.Field.Tag.Get("db") != "" && len(f.Index) == 1 {
			names = append(names, f.Name)
		}
	}
	return strings.Join(names, ", ")
}

// GetOne reads one row, nil when there is none.
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

// OrderID returns the order that the path names.
func OrderID(r *http.Request) (string, error) {
	id := r.PathValue("order")
	if err := fulfilment.CheckOrderID(id); err != nil {
		return "", Problemf(http.StatusBadRequest, "%s", err)
	}
	return id, nil
}

// Name returns what the path names under a field: a customer, a SKU.
func Name(r *http.Request, field string) (string, error) {
	name := r.PathValue(field)
	return name, Check(fulfilment.CheckName(field, name))
}

// Check joins what is wrong with the fields of a request into one problem.
func Check(errs ...error) error { return Invalid(errors.Join(errs...)) }

// Page returns the limit of a list that is read in pages with the parameters limit and after. It
// refuses parameters that are neither of these nor among others.
func Page(r *http.Request, usual, most int, others ...string) (limit int, err error) {
	known := append(others, "limit", "after")
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
