package payments_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

const euro = `{"currency":"EUR"}`

func money(amount int64) string { return fmt.Sprintf(`{"amount":%d,"currency":"EUR"}`, amount) }

func TestAnAccountIsOpenedOnceInOneCurrency(t *testing.T) {
	t.Parallel()
	s := start(t)
	for range 2 {
		s.Want(s.Call("PUT", "/accounts/ada", euro), http.StatusOK, `"customer":"ada"`,
			`"currency":"EUR"`, `"balance":0`)
	}
	s.Want(s.Post("/accounts/ada/deposits", money(100)), http.StatusCreated)
	s.Want(s.Call("PUT", "/accounts/ada", euro), http.StatusOK, `"balance":100`)
	s.Want(s.Call("PUT", "/accounts/ada", `{"currency":"USD"}`), http.StatusConflict,
		"the account of ada is in EUR")
	s.Want(s.Call("GET", "/accounts/ada", ""), http.StatusOK, `"balance":100`, `"currency":"EUR"`)
	s.Want(s.Call("GET", "/accounts/eve", ""), http.StatusNotFound, "eve")
}

func TestDeposits(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.Want(s.Post("/accounts/ada/deposits", money(1)), http.StatusNotFound, "PUT /accounts/ada")
	s.Want(s.Call("PUT", "/accounts/ada", euro), http.StatusOK)
	first := s.Want(s.Post("/accounts/ada/deposits", money(1)), http.StatusCreated, `"balance":1`)
	if got := first.Header.Get("Location"); got != "/accounts/ada" {
		t.Errorf("location %q", got)
	}
	s.Want(s.Post("/accounts/ada/deposits", `{"amount":1,"currency":"USD"}`), http.StatusConflict,
		"is in EUR")
	s.Want(s.Call("POST", "/accounts/ada/deposits", money(1)), http.StatusBadRequest, "https://")
	s.Want(s.Post("/accounts/ada/deposits", money(math.MaxInt64)), http.StatusUnprocessableEntity,
		"64 bits")
	s.Want(s.Post("/accounts/ada/deposits", money(math.MaxInt64-1)), http.StatusCreated,
		fmt.Sprint(math.MaxInt64))
}

// A refused deposit leaves the key free: what was wrong can be repaired and tried again.
func TestARefusalDoesNotUseUpTheKey(t *testing.T) {
	t.Parallel()
	s := start(t)
	deposit := func() webtest.Answer {
		return s.Call("POST", "/accounts/ada/deposits", money(5), "Idempotency-Key", "k")
	}
	s.Want(deposit(), http.StatusNotFound)
	s.Want(s.Call("PUT", "/accounts/ada", euro), http.StatusOK)
	s.Want(deposit(), http.StatusCreated)
	if a := s.Want(deposit(), http.StatusCreated,
		`"balance":5`); a.Header.Get("Idempotency-Replayed") != "true" {
		t.Error("the second answer is not a replay")
	}
	if n := s.Int(balanceSQL); n != 5 {
		t.Errorf("balance %d", n)
	}
}

func TestWhatAClientCannotMeanIsRefusedWithItsField(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.Want(s.Call("PUT", "/accounts/ada", euro), http.StatusOK)
	s.Want(s.Call("PUT", "/accounts/bob", `{}`), http.StatusBadRequest, "currency: ")
	for body, field := range map[string]string{
		`{"amount":0,"currency":"EUR"}`:                   "amount: ",
		`{"amount":-1,"currency":"EUR"}`:                  "amount: ",
		`{"amount":-0,"currency":"EUR"}`:                  "amount: ",
		`{"amount":null,"currency":"EUR"}`:                "amount: ",
		`{"currency":"EUR"}`:                              "amount: ",
		`{"amount":1e2,"currency":"EUR"}`:                 "amount: ",
		`{"amount":1.0,"currency":"EUR"}`:                 "amount: ",
		`{"amount":9223372036854775808,"currency":"EUR"}`: "amount: ",
		`{"amount":"1","currency":"EUR"}`:                 "amount: ",
		`{"amount":NaN,"currency":"EUR"}`:                 "amount: ",
		`{"amount":1,"currency":"EURO"}`:                  "currency: ",
		`{"amount":1,"currency":"XXQ"}`:                   "currency: ",
		`{"amount":1,"currency":"eur"}`:                   "currency: ",
		`{"amount":1}`:                                    "currency: ",
		`{"amount":1,"currency":"EUR","tip":1}`:           "tip: unknown field",
		`{"amount":1,"currency":"EUR","amount":1}`:        "amount",
		`{"amount":1,"currency":"EUR"}{}`:                 "body: ",
		`null`:                                            "amount: ",
		`[]`:                                              "body: ",
		``:                                                "body: ",
		strings.Repeat(`[`, 10_001):                       ": ",
	} {
		s.Want(s.Post("/accounts/ada/deposits", body), http.StatusBadRequest, field)
	}
	s.Want(s.Call("PUT", "/accounts/ada", `{"currency":"doubloon"}`), http.StatusBadRequest,
		"currency: ")
	for name, field := range map[string]string{
		"%00": "path: ", "a%20b": "customer: ", "-a": "customer: ", "%ff": "path: ",
		strings.Repeat("a", 65): "customer: ", "a%0d%0ab": "path: ",
	} {
		s.Want(s.Call("PUT", "/accounts/"+name, euro), http.StatusBadRequest, field)
		s.Want(s.Call("GET", "/accounts/"+name, ""), http.StatusBadRequest, field)
		s.Want(s.Post("/accounts/"+name+"/deposits", money(1)), http.StatusBadRequest, field)
	}
	s.Want(s.Post("/accounts/ada/deposits", strings.Repeat(" ", 70<<10)),
		http.StatusRequestEntityTooLarge)
	if n := s.Int(balanceSQL); n != 0 {
		t.Errorf("balance %d", n)
	}
}

func TestAPaymentIsShownButNotItsTombstone(t *testing.T) {
	t.Parallel()
	s := start(t)
	id := events.NewID()
	s.Want(s.Call("GET", "/payments/"+id, ""), http.StatusNotFound, id)
	s.Want(s.Call("GET", "/payments/nonsense", ""), http.StatusBadRequest, "order_id: ")
	s.Want(s.Call("GET", "/payments/"+strings.ToUpper(id), ""), http.StatusBadRequest, "order_id: ")
	s.react(cancelled(id))
	if got := s.payment(id).State; got != payments.Void {
		t.Fatalf("state %q, want a tombstone", got)
	}
	s.Want(s.Call("GET", "/payments/"+id, ""), http.StatusNotFound, id)
	other := events.NewID()
	s.react(placed(other, 100))
	s.Want(s.Call("GET", "/payments/"+other, ""), http.StatusOK, `"state":"declined"`,
		`"reason":"no such account"`)
}
