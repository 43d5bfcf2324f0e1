package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/inventory"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/localrun"
)

// Ending is the state of an order in each of the four services: "none" if a service does not know
// it, and alternatives separated by | if timing decides.
type Ending struct {
	Order    string `json:"order"`
	Payment  string `json:"payment"`
	Stock    string `json:"stock"`
	Shipment string `json:"shipment"`
}

func (e Ending) String() string {
	return fmt.Sprintf("order %s, payment %s, stock %s, shipment %s", e.Order, e.Payment, e.Stock,
		e.Shipment)
}

// The expected ends of the orders of the demo.
var (
	confirmed      = Ending{"confirmed", "captured", "committed", "scheduled"}
	declined       = Ending{"cancelled", "declined", "none", "none"}
	outOfStock     = Ending{"cancelled", "refunded", "rejected", "none"}
	notShipped     = Ending{"cancelled", "refunded", "released", "failed"}
	cancelledEarly = Ending{"cancelled", "none|refunded", "none|released", "none|cancelled"}
	cancelledLate  = Ending{"cancelled", "refunded", "released", "none|cancelled"}
	expired        = Ending{"cancelled", "refunded", "released", "cancelled"}
	adopted        = Ending{"cancelled", "none", "none", "none"}
	refundRefused  = Ending{"cancelled", "refund_refused", "rejected", "none"}
	recallRefused  = Ending{"cancelled", "refunded", "released", "recall_refused"}
)

// allows reports whether got is one of the ends that e allows.
func (e Ending) allows(got Ending) bool {
	one := func(want, got string) bool { return slices.Contains(strings.Split(want, "|"), got) }
	return one(e.Order, got.Order) && one(e.Payment, got.Payment) && one(e.Stock, got.Stock) &&
		one(e.Shipment, got.Shipment)
}

// ending requests the states of an order from the four services.
func (d *player) ending(ctx context.Context, id string) (Ending, error) {
	order, err1 := d.stateOf(ctx, "orders", "/orders/"+id)
	payment, err2 := d.stateOf(ctx, "payments", "/payments/"+id)
	stock, err3 := d.stateOf(ctx, "inventory", "/reservations/"+id)
	shipment, err4 := d.stateOf(ctx, "shipping", "/shipments/"+id)
	return Ending{order, payment, stock, shipment}, errors.Join(err1, err2, err3, err4)
}

// stateOf requests a state from one service. It returns "none" if the service does not know the
// order.
func (d *player) stateOf(ctx context.Context, service, path string) (string, error) {
	var out struct {
		State string `json:"state"`
	}
	err := d.Call(ctx, service, "GET", path, nil, nil, &out)
	if cli.IsNotFound(err) {
		return "none", nil
	}
	return out.State, err
}

// poll calls check until it returns true or an error, for at most settleTimeout. ok reports whether
// it returned true.
func poll(ctx context.Context, check func() (bool, error)) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	_ = localrun.Poll(ctx, pollEvery, func() (bool, error) {
		ok, err = check()
		return ok || err != nil, nil
	})
	return ok, err
}

// await waits until an order has its expected end, and returns its last known end.
func (d *player) await(ctx context.Context, o expectedOrder) (got Ending, ok bool, err error) {
	ok, err = poll(ctx, func() (bool, error) {
		got, err = d.ending(ctx, o.order)
		return o.expect.allows(got), err
	})
	return got, ok, err
}

// awaitReservation waits until the reservation of an order has one of the states.
func (d *player) awaitReservation(ctx context.Context, id string, states ...string) error {
	ok, err := poll(ctx, func() (bool, error) {
		got, err := d.stateOf(ctx, "inventory", "/reservations/"+id)
		return slices.Contains(states, got), err
	})
	if err == nil && !ok {
		err = fmt.Errorf("the reservation of order %s is not %s after %s", id,
			strings.Join(states, " or "),
			settleTimeout)
	}
	return err
}

// firstOf returns the first error of services that did not answer, nil when all did.
func firstOf(missing []admin.Missing) error {
	if len(missing) == 0 {
		return nil
	}
	return missing[0].Err
}

// awaitParked waits until n events are parked.
func (d *player) awaitParked(ctx context.Context, n int) (list []admin.Parked, err error) {
	_, err = poll(ctx, func() (bool, error) {
		all := d.Client().Parked(ctx, 0)
		list = all.Parked
		return len(list) >= n, firstOf(all.Missing)
	})
	return list, err
}

// parkedViolations compares the parked events with the expected ones.
func (d *player) parkedViolations(list []admin.Parked) (violations []string) {
	want := map[badMessage]int{}
	for _, b := range d.bad {
		want[b]++
	}
	for _, p := range list {
		want[badMessage{p.Service, p.Type}]--
	}
	for b, n := range want {
		if n != 0 {
			violations = append(violations,
				fmt.Sprintf("parked at %s: %+d of %s, compared with the expected number", b.service, -n,
					b.eventType))
		}
	}
	return violations
}

// Ledger shows where the money and the goods are at the end of the demo.
type Ledger struct {
	Accounts  []payments.Account `json:"accounts"`
	Deposited int64              `json:"deposited"`
	Captured  int64              `json:"captured"` // and not refunded
	Charged   int64              `json:"charged"`  // to cards and not refunded
	Stock     []inventory.Stock  `json:"stock"`
	Shipments map[string]int     `json:"shipments"` // by state
	Confirmed int                `json:"confirmed"`
}

func (d *player) ledger(ctx context.Context, outcome []Outcome) (Ledger, error) {
	l := Ledger{Deposited: deposits + 100, Shipments: map[string]int{}}
	for _, customer := range []string{rich, poor} {
		var a payments.Account
		if err := d.Call(ctx, "payments", "GET", "/accounts/"+customer, nil, nil, &a); err != nil {
			return l, err
		}
		l.Accounts = append(l.Accounts, a)
	}
	for _, o := range outcome {
		l.Shipments[o.Got.Shipment]++
		if o.Got.Order == string(orders.Confirmed) {
			l.Confirmed++
		}
		if o.Got.Payment == string(payments.Captured) {
			var p payments.Payment
			if err := d.Call(ctx, "payments", "GET", "/payments/"+o.OrderID, nil, nil, &p); err != nil {
				return l, err
			}
			if p.Card == "" {
				l.Captured += p.Amount
			} else {
				l.Charged += p.Amount
			}
		}
	}
	var all struct {
		Stock []inventory.Stock `json:"stock"`
	}
	err := d.Call(ctx, "inventory", "GET", "/stock", nil, nil, &all)
	l.Stock = all.Stock
	return l, err
}

// violations checks that money and goods are conserved, that nothing is still reserved, and that
// the number of shipments is that of the confirmed orders.
func (l Ledger) violations() (found []string) {
	var balances int64
	for _, a := range l.Accounts {
		balances += a.Balance
	}
	if balances+l.Captured != l.Deposited {
		found = append(found, fmt.Sprintf("money: %d in accounts and %d captured of %d deposited",
			balances, l.Captured, l.Deposited))
	}
	for _, s := range l.Stock {
		if s.Reserved != 0 || s.OnHand+s.Committed != received {
			found = append(found, fmt.Sprintf("stock: %+v of %d received", s, received))
		}
	}
	if l.Shipments["scheduled"] != l.Confirmed {
		found = append(found, fmt.Sprintf("shipments: %d scheduled for %d confirmed orders",
			l.Shipments["scheduled"], l.Confirmed))
	}
	return found
}

func (l Ledger) print(t *cli.Text) {
	t.Printf("money, in cents\n")
	for _, a := range l.Accounts {
		t.Printf("  %-10s %10d %s\n", a.Customer, a.Balance, a.Currency)
	}
	t.Printf("  %-10s %10d\n  %-10s %10d deposited\n", "captured", l.Captured, "together", l.Deposited)
	t.Printf("  %-10s %10d to cards, as in the journal of the provider\n", "charged", l.Charged)
	t.Printf("stock\n")
	for _, s := range l.Stock {
		t.Printf("  %-10s %4d received = %d on hand + %d reserved + %d committed\n", s.SKU, s.Received,
			s.OnHand, s.Reserved, s.Committed)
	}
	t.Printf("shipments\n  %d scheduled for %d confirmed orders, %d cancelled, %d failed\n",
		l.Shipments["scheduled"], l.Confirmed, l.Shipments["cancelled"], l.Shipments["failed"])
}

// missingSteps returns the parts of the topology that no order of the demo used: an event that no
// service published, or that a subscriber has not handled.
func missingSteps(outcome []Outcome) (missing []string) {
	seen := map[string]bool{}
	for _, o := range outcome {
		for _, step := range o.Trace.Steps {
			seen[step.Type] = true
			for _, h := range step.Handled {
				seen[step.Type+" → "+h.Service] = true
			}
		}
	}
	for _, eventType := range fulfilment.Topology().Types() {
		if !seen[eventType] {
			missing = append(missing, "no service published "+eventType)
		}
		for _, subscriber := range fulfilment.Topology().Subscribers(eventType) {
			if !seen[eventType+" → "+subscriber] {
				missing = append(missing, subscriber+" has not handled "+eventType)
			}
		}
	}
	return missing
}
