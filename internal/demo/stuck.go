package demo

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
)

// The bounds of a list of stuck orders.
const (
	stuckAfter = time.Minute
	maxStuck   = 20
)

// stuckOrder is an order that does not get on, or one of whose events waits for a person.
type stuckOrder struct {
	Order string            `json:"order"`
	State orders.OrderState `json:"state"` // empty: orders does not know it, or does not answer
	// Since is when the order was placed, or the event began to wait.
	Since time.Time `json:"since"`
	// Waiting is what it waits for: what a person must do first, or else the oldest; nil: nothing
	// waits, so its next event is lost or its last one has no effect.
	Waiting *admin.Waiting `json:"waiting"`
}

func orderStuck(e *cli.Env) *cobra.Command {
	older, limit := stuckAfter, maxStuck
	c := &cobra.Command{
		Use: "stuck", Short: "List orders that do not get on, with the place and the reason",
		Long: "List the orders that have been open for longer than --older, and those of which an " +
			"event is parked or held in any\nservice, also after they have ended. Each has the place " +
			"where it waits and the last error. The exit code is 5 if\nthere is one.",
		Example: "  quadrille order stuck --older 5m",
		RunE: func(c *cobra.Command, _ []string) error {
			if older <= 0 || limit < 1 {
				return cli.Error{Code: cli.ExitUsage,
					Err: fmt.Errorf("--older %s, --limit %d: must be more than 0", older, limit)}
			}
			found, more, missing, err := findStuck(c.Context(), e, older, limit)
			if err != nil {
				return err
			}
			document := map[string]any{"stuck": found, "more": more, "missing": missing}
			if err := e.Print(document, func(t *cli.Text) { stuckTable(t, found, time.Now()) }); err != nil {
				return err
			}
			if more {
				e.Notef("there are more; see them with a higher --limit")
			}
			var stuck error
			if len(found) > 0 {
				stuck = cli.Error{Code: cli.ExitProblems, Err: fmt.Errorf("%d orders are stuck", len(found)),
					Next: "see all about one: " + e.App.Command("where "+found[0].Order)}
			} else if len(missing) == 0 {
				e.Notef("no order is stuck")
			}
			return e.Partial(len(e.App.Topology.Services)-len(missing), missing, stuck)
		},
	}
	c.Flags().DurationVar(&older, "older", stuckAfter, "how long an order may be open")
	c.Flags().IntVar(&limit, "limit", maxStuck, "at most so many orders")
	return c
}

// findStuck lists at most limit orders, first those of which something waits for a person.
func findStuck(ctx context.Context, e *cli.Env, older time.Duration, limit int) (found []stuckOrder,
	more bool, missing []admin.Missing, err error) {
	client := e.Client()
	since := map[string]time.Time{} // by order
	add := func(order string, at time.Time) {
		if known, ok := since[order]; order != "" && (!ok || at.Before(known)) {
			since[order] = at
		}
	}
	parked := client.Parked(ctx, 0)
	for _, p := range parked.Parked {
		add(p.Subject, p.CreatedAt)
	}
	held, unanswered := admin.Collect(client.Services, func(service string) ([]admin.HeldEvent,
		error) {
		return client.Service(service).Held(ctx, 0, 0)
	})
	for _, h := range held {
		add(h.Subject, time.Now())
	}
	missing = admin.Union(parked.Missing, unanswered)
	for order, at := range since {
		found = append(found, stuckOrder{Order: order, Since: at})
	}
	slices.SortFunc(found, func(a, b stuckOrder) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Order, b.Order))
	})
	open, next, err := openOrders(ctx, e, older, limit)
	switch {
	case admin.Unreachable(err):
		missing, err = admin.Union(missing, []admin.Missing{admin.NewMissing("orders", err)}), nil
	case err != nil:
		return nil, false, missing, err
	}
	for _, o := range open {
		if _, known := since[o.ID]; !known {
			found = append(found, stuckOrder{Order: o.ID, State: o.State, Since: o.PlacedAt})
		}
	}
	more = next != "" || len(found) > limit
	found = append([]stuckOrder{}, found[:min(limit, len(found))]...)
	for i := range found {
		found[i].look(ctx, e)
	}
	return found, more, missing, nil
}

// openOrders lists the open orders that are older, the youngest of them first. The ids of orders
// grow with time, so the list begins with the one that an order of that age would have.
func openOrders(ctx context.Context, e *cli.Env, older time.Duration, limit int) ([]orders.View,
	string, error) {
	ms := time.Now().Add(-older).UnixMilli()
	before := fmt.Sprintf("%08x-%04x-7000-8000-000000000000", ms>>16, ms&0xffff)
	var page struct {
		Orders []orders.View
		Next   string
	}
	q := url.Values{"state": {string(orders.Placed)}, "after": {before},
		"limit": {strconv.Itoa(min(limit, 100))}}
	err := e.Call(ctx, "orders", "GET", "/orders?"+q.Encode(), nil, nil, &page)
	return page.Orders, page.Next, err
}

// look finds out what an order waits for, and its state if that is not known.
func (s *stuckOrder) look(ctx context.Context, e *cli.Env) {
	if s.State == "" {
		var o orders.View
		if e.Call(ctx, "orders", "GET", "/orders/"+url.PathEscape(s.Order), nil, nil, &o) == nil {
			s.State = o.State
		}
	}
	waiting := e.Client().Where(ctx, s.Order, e.App.Topology.Subscribers).Waiting
	rank := func(w admin.Waiting) int {
		switch w.Place {
		case admin.IsParked:
			return 0
		case admin.Held:
			return 1
		case admin.OnDeadline:
			return 3
		}
		return 2
	}
	slices.SortStableFunc(waiting, func(a, b admin.Waiting) int { return rank(a) - rank(b) })
	if len(waiting) > 0 {
		s.Waiting = &waiting[0]
		if rank(waiting[0]) < 2 {
			s.Since = waiting[0].Since
		}
	}
}

func stuckTable(t *cli.Text, found []stuckOrder, now time.Time) {
	if len(found) == 0 {
		return
	}
	t.Table("ORDER\tSTATE\tFOR\tWAITS IN\tOF\tTYPE\tREASON", func(row func(...any)) {
		for _, s := range found {
			place, service, eventType, reason := "nothing waits", "-", "-", "-"
			if w := s.Waiting; w != nil {
				line, _, _ := strings.Cut(w.Reason, "\n")
				place, service, eventType, reason = string(w.Place), w.Service, w.Type, line
			}
			row(s.Order, cmp.Or(string(s.State), "-"), now.Sub(s.Since), place, service,
				eventType, reason)
		}
	})
}
