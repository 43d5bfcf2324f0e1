package orders_test

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
)

func TestAnOrderIsAnsweredAsItWillBeRead(t *testing.T) {
	t.Parallel()
	w := start(t)
	a := w.Want(w.Post("/orders", order("ada")), http.StatusCreated, `"state":"placed"`,
		`"amount":5300`, `"currency":"EUR"`)
	var v orders.View
	w.Decode(a, &v)
	if got := a.Header.Get("Location"); got != "/orders/"+v.ID {
		t.Errorf("location %q of order %s", got, v.ID)
	}
	if read := w.show(v.ID); !reflect.DeepEqual(read, v) {
		t.Errorf("read %+v\nanswered %+v", read, v)
	}
	if got := v.Deadline.Sub(v.PlacedAt); got != within {
		t.Errorf("the deadline is %s after the order", got)
	}
	if n := w.published(v.ID, "order.placed"); n != 1 {
		t.Errorf("order.placed was said %d times", n)
	}
	w.Want(w.Call("GET", "/orders/"+events.NewID(), ""), http.StatusNotFound)
	w.Want(w.Call("GET", "/orders/"+strings.ToUpper(v.ID), ""), http.StatusBadRequest, "order_id: ")
}

// The deadline waits in the database, due when the order says or a moment later, by the same clock:
// no process needs to live until then.
func TestTheDeadlineIsDurable(t *testing.T) {
	t.Parallel()
	w := start(t)
	for more, want := range map[string]time.Duration{"": within,
		`,"deadline_seconds":7`: 7 * time.Second, `,"deadline_seconds":null`: within} {
		var v orders.View
		w.Decode(w.Want(w.Post("/orders", body("ada", `[{"sku":"teapot","quantity":1,"unit_price":1}]`,
			more)), http.StatusCreated), &v)
		var due time.Time
		err := w.DB.GetContext(t.Context(), &due, `SELECT due FROM pending WHERE consumer = 'orders'
			AND type = 'orders.expire' AND key = $1`, "orders.expire:"+v.ID)
		if late := due.Sub(v.Deadline); err != nil || late < 0 || late > time.Minute ||
			v.Deadline.Sub(v.PlacedAt) != want {
			t.Errorf("%q: due %s, deadline %s, placed %s: %v", more, due, v.Deadline, v.PlacedAt, err)
		}
	}
	for _, bad := range []string{`0`, `-1`, `604801`, `1.5`, `"7"`} {
		w.Want(w.Post("/orders", body("ada", `[]`, `,"deadline_seconds":`+bad)), http.StatusBadRequest,
			"deadline_seconds: ")
	}
}

func TestOrdersThatNobodyCanMeanAreRefusedWithTheirField(t *testing.T) {
	t.Parallel()
	w := start(t)
	const one = `{"sku":"teapot","quantity":1,"unit_price":1}`
	lines := func(l string) string { return body("ada", l, "") }
	good := lines("[" + one + "]")
	for bad, field := range map[string]string{
		body("", "["+one+"]", ""):                     "customer: ",
		body("a b", "["+one+"]", ""):                  "customer: ",
		body("ada", "["+one+"]", `,"gift":true`):      "gift: unknown field",
		body("ada", "["+one+"]", `,"customer":"eve"`): "customer",
		good + `{}`:                                                  "body: ",
		strings.Replace(good, "EUR", "EURO", 1):                      "currency: ",
		strings.Replace(good, "EUR", "XQQ", 1):                       "currency: ",
		strings.Replace(good, `"currency":"EUR",`, "", 1):            "currency: ",
		strings.Replace(good, `"GB"`, `"gb"`, 1):                     "address.country: ",
		strings.Replace(good, `"GB"`, `"GBR"`, 1):                    "address.country: ",
		strings.Replace(good, `"GB"`, `7`, 1):                        "address.country: ",
		strings.Replace(good, "London", "", 1):                       "address.city: ",
		strings.Replace(good, "London", `a\u0000b`, 1):               "address.city: ",
		strings.Replace(good, "London", `\ud800`, 1):                 "address.city: ",
		strings.Replace(good, "London", "\xff", 1):                   "address.city: ",
		strings.Replace(good, "London", strings.Repeat("x", 201), 1): "address.city: ",
		lines(`[]`):   "lines: ",
		lines(`null`): "lines: ",
		lines("[" + strings.Repeat(one+",", 100) + one + "]"): "lines: 101 ",
		lines("[" + one +
			`,{"sku":"a b","quantity":1,"unit_price":1}]`): "lines[1].sku: ",
		lines("[" + one +
			`,{"sku":"a","quantity":1,"unit_price":1,"discount":1}]`): "lines[1].discount: unknown field",
		lines("[" + one +
			`,{"sku":"a","quantity":4611686018427387904,"unit_price":2}]`): "lines[1].quantity: ",
		lines(`[{"sku":"a","quantity":1000000000,` +
			`"unit_price":9223372036854775807}]`): "lines[0]: amount overflows",
		lines(`[{"sku":"a","quantity":1,"unit_price":9223372036854775807},` + one +
			`]`): "lines[1]: amount overflows",
	} {
		w.Want(w.Post("/orders", bad), http.StatusBadRequest, field)
	}
	for _, number := range []string{"-1", "0", "-0", "null", "1e2", "1.0", "9223372036854775808",
		`"3"`, "NaN", "+1", "[1]", "true", "1000000001"} {
		w.Want(w.Post("/orders", lines(`[{"sku":"a","unit_price":1,"quantity":`+number+`}]`)),
			http.StatusBadRequest, "lines[0].quantity: ")
	}
	w.Want(w.Post("/orders", strings.Repeat(" ", 64<<10)+good), http.StatusRequestEntityTooLarge,
		"65536 bytes")
	if n := w.Int(`SELECT (SELECT count(*) FROM orders) + (SELECT count(*)
		FROM outbox) + (SELECT count(*) FROM pending) +
		(SELECT count(*) FROM idempotency_keys)`); n != 0 {
		t.Errorf("%d rows of refused orders", n)
	}
	w.Want(w.Post("/orders", lines("["+strings.Repeat(one+",", 99)+one+"]")), http.StatusCreated,
		`"amount":100`)
}

func TestTheListIsPagedNewestFirst(t *testing.T) {
	t.Parallel()
	w := start(t)
	var want []string
	for i := range 7 {
		v := w.place([]string{"ada", "bob"}[i%2])
		want = append([]string{v.ID}, want...)
	}
	w.Want(w.Call("POST", "/orders/"+want[0]+"/cancellation", ""), http.StatusOK)
	list := func(query string) (ids []string, next string) {
		var page struct {
			Orders []orders.View
			Next   string
		}
		w.Decode(w.Want(w.Call("GET", "/orders"+query, ""), http.StatusOK), &page)
		for _, v := range page.Orders {
			ids = append(ids, v.ID)
		}
		return ids, page.Next
	}
	var got []string
	for after, pages := "", 0; pages == 0 || after != ""; pages++ {
		query := "?limit=3"
		if after != "" {
			query += "&after=" + after
		}
		ids, next := list(query)
		if len(ids) > 3 || pages > 3 {
			t.Fatalf("page %d has %d orders", pages, len(ids))
		}
		got, after = append(got, ids...), next
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	for query, ids := range map[string][]string{
		"":                                     want,
		"?customer=bob":                        {want[1], want[3], want[5]},
		"?state=cancelled":                     {want[0]},
		"?state=placed&customer=ada&limit=2":   {want[2], want[4]},
		"?customer=nobody":                     nil,
		"?state=confirmed":                     nil,
		"?after=" + want[5]:                    {want[6]},
		"?customer=" + url.QueryEscape("a@b+"): nil,
	} {
		if got, _ := list(query); !reflect.DeepEqual(got, ids) {
			t.Errorf("%q lists %v, want %v", query, got, ids)
		}
	}
	for query, more := range map[string]string{"?limit=7": "", "?limit=6": want[5],
		"?customer=bob&limit=3": ""} {
		if _, next := list(query); next != more {
			t.Errorf("%q continues after %q, want %q", query, next, more)
		}
	}
	for query, field := range map[string]string{
		"?page=2": "unknown parameter", "?Limit=2": "unknown parameter", "?limit=0": "limit: ",
		"?limit=501": "limit: ", "?limit=x": "limit: ",
		"?state=lost": "state: ", "?after=1": "after: ", "?customer=%00": "query: ",
		"?customer=%ff":                        "query: ",
		"?" + url.QueryEscape("a\r\nb") + "=1": "query: ", "?" + url.QueryEscape("a b") +
			"=1": "unknown parameter",
	} {
		w.Want(w.Call("GET", "/orders"+query, ""), http.StatusBadRequest, field)
	}
	w.Want(w.Call("GET", "/orders?customer=nobody", ""), http.StatusOK, `{"orders":[]}`)
	w.Want(w.Call("PUT", "/orders", "{}"), http.StatusMethodNotAllowed)
}

func TestTheDatabaseItselfRefusesBrokenOrders(t *testing.T) {
	t.Parallel()
	w := start(t)
	id := w.place("ada").ID
	for _, statement := range []string{
		`UPDATE orders SET state = 'shipped'`, `UPDATE orders SET state = 'cancelled'`,
		`UPDATE orders SET reason = 'why'`,
		`UPDATE orders SET amount = -1`, `INSERT INTO orders SELECT * FROM orders`,
	} {
		if _, err := w.DB.ExecContext(t.Context(), statement); err == nil ||
			!strings.Contains(fmt.Sprint(err), "violates") {
			t.Errorf("%s: %v, want an integrity violation", statement, err)
		}
	}
	if v := w.show(id); v.State != orders.Placed || v.Amount != 5300 {
		t.Errorf("order %+v", v)
	}
}
