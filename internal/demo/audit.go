package demo

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/fulfilment/shipping"
)

const auditPage = 500 // rows in one request

// listing reads all rows of a service by order, the newest first, a page at a time.
type listing[T any] struct {
	page  func(after string) (rows []T, next string, err error)
	order func(T) string
	rows  []T
	next  string
	begun bool
}

// peek returns the next row without taking it; ok is false after the last one.
func (l *listing[T]) peek() (row T, ok bool, err error) {
	for len(l.rows) == 0 {
		if l.begun && l.next == "" {
			return row, false, nil
		}
		l.begun = true
		if l.rows, l.next, err = l.page(l.next); err != nil {
			return row, false, err
		}
	}
	return l.rows[0], true, nil
}

// newest returns the order of the next row if it is newer than the given one, else the given one.
func (l *listing[T]) newest(than string) (string, error) {
	row, ok, err := l.peek()
	if err != nil || !ok {
		return than, err
	}
	return max(than, l.order(row)), nil
}

// take returns the row of an order and goes on, or the zero value if there is none.
func (l *listing[T]) take(order string) (row T) {
	if len(l.rows) > 0 && l.order(l.rows[0]) == order {
		row, l.rows = l.rows[0], l.rows[1:]
	}
	return row
}

// books are the lists of the four services.
type books struct {
	orders       listing[orders.View]
	payments     listing[payments.Payment]
	reservations listing[inventory.View]
	shipments    listing[shipping.View]
}

// rowsOf reads a page of a list; its rows are the field with this name.
func rowsOf[T any](ctx context.Context, e *cli.Env, service, path string,
	order func(T) string) listing[T] {
	return listing[T]{order: order, page: func(after string) ([]T, string, error) {
		var page struct {
			Orders       []T    `json:"orders"`
			Payments     []T    `json:"payments"`
			Reservations []T    `json:"reservations"`
			Shipments    []T    `json:"shipments"`
			Next         string `json:"next"`
		}
		q := url.Values{"limit": {fmt.Sprint(auditPage)}, "after": {after}}
		err := e.Call(ctx, service, "GET", path+"?"+q.Encode(), nil, nil, &page)
		rows := append(append(append(page.Orders, page.Payments...), page.Reservations...),
			page.Shipments...)
		return rows, page.Next, err
	}}
}

func booksOf(ctx context.Context, e *cli.Env) *books {
	return &books{
		rowsOf(ctx, e, "orders", "/orders", func(o orders.View) string { return o.ID }),
		rowsOf(ctx, e, "payments", "/payments", func(p payments.Payment) string { return p.OrderID }),
		rowsOf(ctx, e, "inventory", "/reservations", func(r inventory.View) string { return r.OrderID }),
		rowsOf(ctx, e, "shipping", "/shipments", func(s shipping.View) string { return s.OrderID }),
	}
}

// next returns the newest order that any service knows and that was not returned yet; an empty id
// after the last one.
func (b *books) next() (order string, a audited, err error) {
	for _, newest := range []func(string) (string, error){b.orders.newest, b.payments.newest,
		b.reservations.newest, b.shipments.newest} {
		if order, err = newest(order); err != nil {
			return "", a, err
		}
	}
	a.order, a.payment = b.orders.take(order), b.payments.take(order)
	a.reservation, a.shipment = b.reservations.take(order), b.shipments.take(order)
	return order, a, nil
}

// auditOrders compares the four services about every order, and verifies the accounts. The lists
// are read one page after another while traffic goes on, so an order that contradicts is read
// once more after grace, unless it still waits somewhere.
func auditOrders(ctx context.Context, e *cli.Env, found *admin.Audit, grace time.Duration) error {
	suspects, n, underWay := []string{}, 0, 0
	for b := booksOf(ctx, e); ; n++ {
		order, a, err := b.next()
		if err != nil {
			return err
		}
		if order == "" {
			break
		}
		a.published = publishedOf(found, order, a)
		if len(a.contradictions()) > 0 {
			suspects = append(suspects, order)
		} else if !a.atRest() {
			underWay++
		}
	}
	waiting, err := auditSuspects(ctx, e, found, suspects, grace)
	if err != nil {
		return err
	}
	underWay += waiting
	found.Checked = append(found.Checked, fmt.Sprintf("%d orders", n))
	if underWay > 0 {
		found.Checked = append(found.Checked, fmt.Sprintf("%d of them not at rest", underWay))
	}
	return auditAccounts(ctx, e, found)
}

// recheckEvery is how often an order that contradicts is read again.
const recheckEvery = time.Second

// auditSuspects reads orders that contradict again, until they agree, or wait somewhere, or grace
// is over. It returns how many wait.
func auditSuspects(ctx context.Context, e *cli.Env, found *admin.Audit, suspects []string,
	grace time.Duration) (waiting int, err error) {
	end := time.Now().Add(grace)
	for _, order := range suspects {
		for {
			last := time.Until(end) <= 0
			findings, waits, err := auditOrder(ctx, e, found, order)
			if err != nil {
				return waiting, err
			}
			if waits {
				waiting++
			}
			if last {
				found.Findings = append(found.Findings, findings...)
			}
			if last || waits || len(findings) == 0 {
				break
			}
			if !sleep(ctx, min(recheckEvery, time.Until(end))) {
				return waiting, ctx.Err()
			}
		}
	}
	return waiting, nil
}

// publishedOf returns the events about an order, nil when the histories do not reach back to it.
func publishedOf(found *admin.Audit, order string, a audited) map[string]int {
	began := a.order.PlacedAt
	for _, service := range []string{"orders", "payments", "inventory", "shipping"} {
		if since, ok := found.Since[service]; ok && began.Before(since.Add(-time.Minute)) {
			return nil
		}
	}
	if published := found.Published(order); published != nil {
		return published
	}
	return map[string]int{}
}

// auditOrder returns the contradictions of one order, and reports whether the order waits
// somewhere, so that its services cannot agree yet.
func auditOrder(ctx context.Context, e *cli.Env, found *admin.Audit, order string) (
	findings []admin.Finding, waits bool, err error) {
	w := e.Client().Where(ctx, order, e.App.Topology.Subscribers)
	for _, x := range w.Waiting {
		if x.Place != admin.OnDeadline {
			return nil, true, nil
		}
	}
	_, a, err := only(ctx, e, order).next()
	if err != nil {
		return nil, false, err
	}
	published := map[string]int{}
	for _, s := range e.Client().Trace(ctx, order).Steps {
		if s.Call == nil && s.Service != "" {
			published[s.Type]++
		}
	}
	if a.published = publishedOf(found, order, a); a.published != nil {
		a.published = published
	}
	for _, detail := range a.contradictions() {
		findings = append(findings, admin.Finding{Subject: order, Rule: "the services agree",
			Detail: detail, Next: "trace " + order})
	}
	return findings, false, nil
}

// only are the lists of the four services with one order.
func only(ctx context.Context, e *cli.Env, order string) *books {
	b := &books{}
	fill(ctx, e, "orders", "/orders/", order, &b.orders, func(o orders.View) string { return o.ID })
	fill(ctx, e, "payments", "/payments/", order, &b.payments,
		func(p payments.Payment) string { return p.OrderID })
	fill(ctx, e, "inventory", "/reservations/", order, &b.reservations,
		func(r inventory.View) string { return r.OrderID })
	fill(ctx, e, "shipping", "/shipments/", order, &b.shipments,
		func(s shipping.View) string { return s.OrderID })
	return b
}

func fill[T any](ctx context.Context, e *cli.Env, service, path, order string, l *listing[T],
	of func(T) string) {
	*l = listing[T]{order: of, page: func(string) ([]T, string, error) {
		var row T
		err := e.Call(ctx, service, "GET", path+order, nil, nil, &row)
		if cli.IsNotFound(err) {
			return nil, "", nil
		}
		return []T{row}, "", err
	}}
}

// auditAccounts verifies the chain of hashes of each account, and what is derived from it.
func auditAccounts(ctx context.Context, e *cli.Env, found *admin.Audit) error {
	list, err := verifyAll(ctx, e, nil)
	if err != nil {
		return err
	}
	for _, v := range list {
		if v.Fits {
			continue
		}
		detail := strings.Join(v.Disagree, "; ")
		if v.Misfit != nil {
			detail = v.Misfit.Error()
		}
		found.Findings = append(found.Findings, admin.Finding{Service: "payments", Subject: v.Customer,
			Rule: "accounts are their events", Detail: cmp.Or(detail, "it does not fit"),
			Next: "accounts verify " + v.Customer})
	}
	found.Checked = append(found.Checked, fmt.Sprintf("%d accounts", len(list)))
	return nil
}

// auditViolations returns the contradictions that the command audit finds.
func auditViolations(ctx context.Context, e *cli.Env) (violations []string, err error) {
	found, err := e.Audit(ctx, settleTimeout)
	if err == nil {
		err = firstOf(found.Missing)
	}
	for _, f := range found.Findings {
		violations = append(violations, fmt.Sprintf("audit: %s: %s: %s", strings.TrimSpace(f.Service+" "+
			f.Subject), f.Rule,
			f.Detail))
	}
	return violations, err
}

// sleep waits, and reports false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
