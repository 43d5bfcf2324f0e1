package web

import (
	"net/http"
	"slices"
	"strings"

	"github.com/quadrille-go/quadrille/fulfilment"
)

// The bounds of a list by order.
const (
	usualByOrder = 100
	maxByOrder   = 1000
)

// ByOrder reads a page of a table with one row for each order, the newest order first: those in the
// state that the request names, which must be one of states, or all. It returns the parameter after
// of the next page, which is empty after the last one.
func ByOrder[T any, S ~string](r *http.Request, from Reader, table string, order func(T) string,
	states ...S) (list []T, next string, err error) {
	limit, err := Page(r, usualByOrder, maxByOrder, "state")
	if err != nil {
		return nil, "", err
	}
	state, after := S(r.URL.Query().Get("state")), r.URL.Query().Get("after")
	if state != "" && !slices.Contains(states, state) {
		names := make([]string, len(states))
		for i, s := range states {
			names[i] = string(s)
		}
		return nil, "", Problemf(http.StatusBadRequest, "state: must be one of %s",
			strings.Join(names, ", "))
	}
	if after == "" {
		after = "ffffffff-ffff-ffff-ffff-ffffffffffff"
	}
	if err := fulfilment.CheckOrderID(after); err != nil {
		return nil, "", Problemf(http.StatusBadRequest, "after: must be the id of an order")
	}
	list, err = GetAll[T](r.Context(), from, "SELECT "+Columns[T]()+" FROM "+table+`
		WHERE ($1 = '' OR state = $1) AND order_id < $2::uuid ORDER BY order_id DESC LIMIT $3`,
		string(state), after, limit+1)
	if len(list) > limit {
		list = list[:limit]
		next = order(list[limit-1])
	}
	return list, next, err
}
