package traces_test

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/telemetry"
	"github.com/quadrille-go/quadrille/internal/telemetry/otlptest"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/tests/system/env"
)

// wantTree is the trace of an order whose reservation failed once, whose shipment was parked and
// redriven, and whose first event was replayed. A line is a span below its parent.
const wantTree = `
orders: POST /orders
  orders: publish orders.events:order.placed
    inventory: process orders.events:order.placed:inventory.in
    payments: process orders.events:order.placed:payments.in
      payments: call payments.charge
        payments: HTTP POST
        payments: react payments.charge_succeeded
          payments: publish payments.events:payment.captured
            inventory: process payments.events:payment.captured:inventory.in, failed
            inventory: process payments.events:payment.captured:inventory.in, attempt 2
              inventory: publish inventory.events:stock.reserved
                shipping: process inventory.events:stock.reserved:shipping.in, failed
                shipping: process inventory.events:stock.reserved:shipping.in
                  shipping: call shipping.book
                    shipping: HTTP POST
                    shipping: react shipping.booking_confirmed
                      shipping: publish shipping.events:shipment.scheduled
                        orders: process shipping.events:shipment.scheduled:orders.in
                          orders: publish orders.events:order.confirmed
                            inventory: process orders.events:order.confirmed:inventory.in
    shipping: process orders.events:order.placed:shipping.in
  orders: publish orders.events:order.placed
`

// traced starts the services with their traces, as their programs do.
func traced(t *testing.T) (*run, *otlptest.Receiver) {
	t.Helper()
	receiver := otlptest.New(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	traces := map[string]*telemetry.Traces{}
	for _, s := range fulfilment.Topology().Services {
		started, err := telemetry.Start(t.Context(), s.Name, os.LookupEnv, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(started.Stop)
		traces[s.Name] = started
	}
	r := start(t, func(service string, c *quadrille.Config) { c.Tracer = traces[service].Tracer() },
		func(service string, h http.Handler) http.Handler { return traces[service].Handler(h) })
	r.Peers["provider"].Through(traces["payments"].Transport)
	r.Peers["carrier"].Through(traces["shipping"].Transport)
	return r, receiver
}

// One trace has all that follows from a request, from the client's span on: what is published,
// handled and called in all services, also after a retry, a redrive, a replay, and with the stream
// in place of the window. Each span is below the one that caused it.
func TestOneTraceForOneOrder(t *testing.T) {
	r, receiver := traced(t)
	order, _ := r.fulfil()
	spans := awaitSpans(t, receiver, order, "process orders.events:order.confirmed:inventory.in")
	placed := spans[slices.IndexFunc(spans, func(s otlptest.Span) bool {
		return s.Name == "publish orders.events:order.placed"
	})]
	var replay struct{ ID int }
	r.ask("orders", "POST", "/admin/replay", "",
		`{"ids":["`+placed.Attributes["messaging.message.id"]+`"]}`, &replay)
	env.Await(t, "the spans of the order", func() (string, bool) {
		got := treeOf(inTrace(receiver.Spans(), clientTrace), clientSpan, "")
		return got, "\n"+got == wantTree
	})

	var relay any
	r.ask("orders", "POST", "/admin/relay", "", `{"source":"stream"}`, &relay)
	env.Await(t, "the relay to stream", func() (string, bool) {
		return "", r.Services["orders"].Stats().Relay.Streaming
	})
	streamed := r.place("streamed")
	r.confirmed(streamed)
	for _, s := range awaitSpans(t, receiver, streamed,
		"process orders.events:order.confirmed:inventory.in") {
		if s.TraceID != clientTrace {
			t.Errorf("%s: %s is in the trace %s", s.Service, s.Name, s.TraceID)
		}
	}
}

// Requests that share a transaction keep their traces apart.
func TestOrdersOfOneTransactionHaveTracesOfTheirOwn(t *testing.T) {
	r, receiver := traced(t)
	const orders = 40
	var placing sync.WaitGroup
	traces := sync.Map{} // by order
	for i := range orders {
		placing.Go(func() {
			trace, placed := fmt.Sprintf("%032x", i+1), struct{ ID string }{}
			if err := r.askIn("00-"+trace+"-"+clientSpan+"-01", "orders", "POST", "/orders",
				fmt.Sprint("together-", i), order, &placed); err != nil {
				t.Error(err)
			}
			traces.Store(placed.ID, trace)
		})
	}
	placing.Wait()
	env.Await(t, "a publication for each order", func() (string, bool) {
		published := map[string]int{}
		for _, s := range receiver.Spans() {
			order := s.Attributes["cloudevents.event_subject"]
			if want, known := traces.Load(order); known && s.Name == "publish orders.events:order.placed" {
				published[order]++
				if s.TraceID != want {
					t.Fatalf("order %s is in the trace %s, want %s", order, s.TraceID, want)
				}
			}
		}
		return fmt.Sprint(len(published)), len(published) == orders
	})
}

// A service that is not traced passes the trace context of the cause of a call on.
func TestUntracedCallsCarryTheTraceOfTheirCause(t *testing.T) {
	t.Parallel()
	r := start(t, func(string, *quadrille.Config) {},
		func(_ string, h http.Handler) http.Handler { return h })
	var outgoing sync.Map // by path
	note := func(base http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			outgoing.Store(request.URL.Path, request.Header.Get("traceparent"))
			return base.RoundTrip(request)
		})
	}
	r.Peers["provider"].Through(note)
	r.Peers["carrier"].Through(note)
	quadrilletest.Run(t, r.Services["payments"])
	id := r.place("untraced")
	r.confirmed(id)
	var root string
	if err := r.open("orders").Get(&root, `SELECT headers->>'traceparent' FROM outbox
		WHERE type = 'order.placed' AND aggregateid = $1`, id); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/charges", "/bookings"} {
		if got, _ := outgoing.Load(path); got != root {
			t.Errorf("POST %s has the traceparent %v, want that of the order, %s", path, got, root)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// awaitSpans waits for the span with a name about an order, and returns all spans about it.
func awaitSpans(t *testing.T, receiver *otlptest.Receiver, order,
	name string) (list []otlptest.Span) {
	t.Helper()
	env.Await(t, "the span "+name, func() (string, bool) {
		list = slices.DeleteFunc(receiver.Spans(), func(s otlptest.Span) bool {
			return s.Attributes["cloudevents.event_subject"] != order
		})
		return fmt.Sprint(len(list), " spans"), slices.ContainsFunc(list,
			func(s otlptest.Span) bool { return s.Name == name })
	})
	return list
}

func inTrace(spans []otlptest.Span, id string) []otlptest.Span {
	return slices.DeleteFunc(spans, func(s otlptest.Span) bool { return s.TraceID != id })
}

// treeOf returns the spans below a parent: the children by name, those with one name by time.
func treeOf(spans []otlptest.Span, parent, indent string) string {
	var children []otlptest.Span
	for _, s := range spans {
		// A request that a busy machine did not answer in time is repeated.
		if s.Parent == parent && !(s.Failed && s.Name == "HTTP POST") {
			children = append(children, s)
		}
	}
	slices.SortFunc(children, func(a, b otlptest.Span) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Begin, b.Begin))
	})
	var tree strings.Builder
	for _, s := range children {
		fmt.Fprintf(&tree, "%s%s: %s", indent, s.Service, s.Name)
		switch attempt := s.Attributes["quadrille.attempt"]; {
		case s.Failed:
			tree.WriteString(", failed")
		case attempt != "" && attempt != "int_value:1":
			tree.WriteString(", attempt " + strings.TrimPrefix(attempt, "int_value:"))
		}
		tree.WriteString("\n" + treeOf(spans, s.ID, indent+"  "))
	}
	return tree.String()
}
