package inventory

import (
	"cmp"
	"math"
	"slices"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/fulfilment"
)

// Participant is the part of inventory in the choreography, with its own command.
var Participant = consumer.Participant[State]{Name: "inventory", Locks: locks,
	React: []consumer.Reaction[State]{
		consumer.On(remember),
		consumer.On(paid),
		consumer.On(release[fulfilment.ShipmentFailed]),
		consumer.On(release[fulfilment.OrderCancelled]),
		consumer.On(commit),
		consumer.On(receive),
	}}

// Receive is the command to take in goods.
type Receive struct {
	SKU      string
	Quantity int64
}

// EventType names the command.
func (Receive) EventType() string { return "inventory.receive" }

// Subject is the article.
func (c Receive) Subject() string { return c.SKU }

// locks locks the stock of an order's lines as soon as they are known: an event of the same batch
// may make them needed.
func locks(s *State, e events.Event) {
	switch c := e.Data.(type) {
	case Receive:
		s.Stock.Lock(c.SKU)
		return
	case fulfilment.OrderPlaced:
		for _, l := range c.Lines {
			s.Stock.Lock(l.SKU)
		}
	}
	s.Reservations.Lock(e.Data.Subject())
	if r, ok := s.Reservations.Loaded(e.Data.Subject()); ok {
		for _, l := range r.Lines.V {
			s.Stock.Lock(l.SKU)
		}
	}
}

// remember keeps the lines, and reserves them if the payment came first.
func remember(s *State, e events.Of[fulfilment.OrderPlaced]) (consumer.Effects, error) {
	r, known := s.Reservations.Get(e.Data.OrderID)
	if known && (r.State != Waiting || len(r.Lines.V) > 0) {
		return consumer.Effects{}, nil
	}
	r.OrderID, r.State, r.Lines.V, r.UpdatedAt = e.Data.OrderID, Waiting, articles(e.Data.Lines),
		e.Time
	return reserve(s, r)
}

// paid reserves the lines, or notes that they may be reserved as soon as they are known.
func paid(s *State, e events.Of[fulfilment.PaymentCaptured]) (consumer.Effects, error) {
	r, known := s.Reservations.Get(e.Data.OrderID)
	if known && r.State != Waiting {
		return consumer.Effects{}, nil
	}
	r.OrderID, r.State, r.Paid, r.UpdatedAt = e.Data.OrderID, Waiting, true, e.Time
	return reserve(s, r)
}

// reserve reserves all lines, or none, once they are known and paid.
func reserve(s *State, r Reservation) (consumer.Effects, error) {
	if !r.Paid || len(r.Lines.V) == 0 {
		s.Reservations.Set(r.OrderID, r)
		return consumer.Effects{}, nil
	}
	for _, l := range r.Lines.V {
		if stock, _ := s.Stock.Get(l.SKU); stock.OnHand < l.Quantity {
			r.State, r.Reason = Rejected, fulfilment.ReasonOutOfStock+": "+l.SKU
			s.Reservations.Set(r.OrderID, r)
			return consumer.Publish(fulfilment.StockRejected{OrderID: r.OrderID, Reason: r.Reason}), nil
		}
	}
	r.State = Reserved
	move(s, r,
		func(stock *Stock, quantity int64) { stock.OnHand -= quantity; stock.Reserved += quantity })
	if r.Confirmed {
		commitNow(s, &r)
	}
	s.Reservations.Set(r.OrderID, r)
	return consumer.Publish(fulfilment.StockReserved{OrderID: r.OrderID}), nil
}

// release frees what was reserved, once. If nothing was, it leaves a tombstone, so that a
// late event does not reserve.
func release[T events.Payload](s *State, e events.Of[T]) (consumer.Effects, error) {
	id := e.Data.Subject()
	r, known := s.Reservations.Get(id)
	if known && r.State != Waiting && r.State != Reserved {
		return consumer.Effects{}, nil
	}
	if !known || r.State == Waiting {
		s.Reservations.Set(id, Reservation{OrderID: id, State: Void, UpdatedAt: e.Time})
		return consumer.Effects{}, nil
	}
	move(s, r,
		func(stock *Stock, quantity int64) { stock.Reserved -= quantity; stock.OnHand += quantity })
	r.State, r.UpdatedAt = Released, e.Time
	s.Reservations.Set(id, r)
	return consumer.Publish(fulfilment.StockReleased{OrderID: id}), nil
}

// commit makes the reservation final, or notes that it will be as soon as there is one.
func commit(s *State, e events.Of[fulfilment.OrderConfirmed]) (consumer.Effects, error) {
	r, known := s.Reservations.Get(e.Data.OrderID)
	switch {
	case !known || r.State == Waiting:
		r.OrderID, r.State, r.Confirmed, r.UpdatedAt = e.Data.OrderID, Waiting, true, e.Time
	case r.State == Reserved:
		r.Confirmed, r.UpdatedAt = true, e.Time
		commitNow(s, &r)
	default:
		return consumer.Effects{}, nil
	}
	s.Reservations.Set(r.OrderID, r)
	return consumer.Effects{}, nil
}

func commitNow(s *State, r *Reservation) {
	r.State = Committed
	move(s, *r,
		func(stock *Stock, quantity int64) { stock.Reserved -= quantity; stock.Committed += quantity })
}

// receive takes goods in; the first of an article make its row.
func receive(s *State, e events.Of[Receive]) (consumer.Effects, error) {
	stock, _ := s.Stock.Get(e.Data.SKU)
	if stock.Received > math.MaxInt64-e.Data.Quantity {
		return consumer.Effects{}, consumer.Refuse(consumer.Invalid, "the stock would not fit 64 bits")
	}
	stock.SKU = e.Data.SKU
	stock.Received += e.Data.Quantity
	stock.OnHand += e.Data.Quantity
	s.Stock.Set(stock.SKU, stock)
	return consumer.Effects{}, nil
}

// move changes the stock of every line.
func move(s *State, r Reservation, change func(stock *Stock, quantity int64)) {
	for _, l := range r.Lines.V {
		stock, _ := s.Stock.Get(l.SKU)
		change(&stock, l.Quantity)
		s.Stock.Set(l.SKU, stock)
	}
}

// articles adds the quantities of each article up, sorted.
func articles(lines []fulfilment.Line) []Line {
	sum := map[string]int64{}
	for _, l := range lines {
		sum[l.SKU] += l.Quantity // at most 100 lines of at most 10⁹
	}
	list := make([]Line, 0, len(sum))
	for sku, quantity := range sum {
		list = append(list, Line{SKU: sku, Quantity: quantity})
	}
	slices.SortFunc(list, func(a, b Line) int { return cmp.Compare(a.SKU, b.SKU) })
	return list
}
