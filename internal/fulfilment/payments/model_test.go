package payments_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// model is what an account should be.
type model struct {
	deposited, balance int64
	closed             bool
	paid               map[string]int64
	over               map[string]bool // declined, refunded, or cancelled before
}

func (m *model) apply(p events.Payload) {
	id := p.Subject()
	switch c := p.(type) {
	case payments.Deposit:
		if !m.closed {
			m.deposited, m.balance = m.deposited+c.Amount, m.balance+c.Amount
		}
	case payments.Close:
		m.closed = true
	case fulfilment.OrderCancelled:
		m.balance, m.paid[id], m.over[id] = m.balance+m.paid[id], 0, true
	case fulfilment.OrderPlaced:
		price := c.Lines[0].UnitPrice
		switch {
		case m.over[id] || m.paid[id] > 0:
		case m.closed || price > m.balance:
			m.over[id] = true
		default:
			m.balance, m.paid[id] = m.balance-price, price
		}
	}
}

// project runs the service's projections until the end of the test.
func (w env) project() {
	ctx, cancel := context.WithCancel(w.Context())
	p := eventstore.Projector{DB: w.DB, Projections: payments.Projections(),
		Log: zerolog.New(zerolog.NewTestWriter(w)).Level(zerolog.InfoLevel)}
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	w.Cleanup(func() { cancel(); running.Wait() })
}

// projected waits until the projections have an account at a version, and returns its balances
// there.
func (w env) projected(customer string, version int64) (balance, statement int64) {
	w.Helper()
	what := fmt.Sprintf("the projections have version %d of %s", version, customer)
	quadrilletest.WaitFor(w.TB, what, func() (bool, string) {
		err := w.DB.QueryRowContext(w.Context(), `SELECT b.balance, s.balance FROM account_balances AS b
			JOIN account_statement AS s USING (customer, version)
			WHERE customer = $1 AND version = $2`, customer, version).Scan(&balance, &statement)
		return err == nil, fmt.Sprint(err)
	})
	return balance, statement
}

// drawCommand is a command or an event about one of three orders of a customer.
func drawCommand(r *rapid.T, customer string, ids []string) events.Payload {
	id := rapid.SampledFrom(ids).Draw(r, "order")
	switch rapid.SampledFrom([]byte("pdpcpdpdpcpdpdpcpdpdpcpdpcpdpdpdpcpdpxpdpcpdpdpc")).Draw(r,
		"what") {
	case 'd':
		return payments.Deposit{Customer: customer, Currency: "EUR",
			Amount: rapid.Int64Range(1, 500).Draw(r, "amount")}
	case 'c':
		return cancelled(id)
	case 'x':
		return payments.Close{Customer: customer}
	}
	order := placed(id, rapid.Int64Range(1, 100).Draw(r, "price"))
	order.Customer = customer
	return order
}

// At any moment the fold, the snapshot with its tail, the projections and the model are the same.
func TestAccountsFollowTheModel(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.project()
	round := 0
	rapid.Check(t, func(r *rapid.T) {
		round++
		customer := fmt.Sprint("customer", round)
		stream := "account/" + customer
		m := model{paid: map[string]int64{}, over: map[string]bool{}}
		w.Want(w.Call("PUT", "/accounts/"+customer, euro), http.StatusOK)
		ids := make([]string, rapid.IntRange(20, 150).Draw(r, "orders"))
		for i := range ids {
			ids[i] = events.NewID()
		}
		for range 12 {
			var batch []events.Payload
			for range rapid.IntRange(5, 20).Draw(r, "batch") {
				p := drawCommand(r, customer, ids)
				m.apply(p)
				switch c := p.(type) {
				case payments.Deposit: // a client's commands come one by one, between the batches of events
					w.react(batch...)
					batch = nil
					w.Post("/accounts/"+customer+"/deposits", money(c.Amount))
				case payments.Close:
					w.react(batch...)
					batch = nil
					w.Call("POST", "/accounts/"+customer+"/closure", "")
				default:
					batch = append(batch, p)
				}
			}
			w.react(batch...)
			folded, err := eventstore.Fold[payments.Account](w.Context(), w.DB, stream)
			if err != nil {
				r.Fatal(err)
			}
			replayed, err := eventstore.Replay[payments.Account](w.Context(), w.DB, stream)
			if err != nil {
				r.Fatal(err)
			}
			want := payments.Account{Customer: customer, Currency: "EUR", Deposited: m.deposited,
				Balance: m.balance, Withdrawn: m.deposited - m.balance, Closed: m.closed}
			if folded[stream] != replayed[stream] || folded[stream].State != want {
				r.Fatalf("folded %+v, replayed %+v, want %+v", folded[stream], replayed[stream], want)
			}
			if rapid.IntRange(0, 9).Draw(r, "look") == 0 {
				if b, s := w.projected(customer, folded[stream].Version); b != m.balance || s != m.balance {
					r.Fatalf("projected %d and %d, want %d", b, s, m.balance)
				}
			}
		}
	})
	if w.Int(`SELECT count(*) FROM eventstore_snapshots`) == 0 {
		t.Error("no stream was long enough for a snapshot")
	}
}

func TestAccountsAreListedAndTheirStoryIsTold(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.project()
	w.rich(1000)
	id := events.NewID()
	w.react(placed(id, 300))
	w.react(cancelled(id))
	w.Want(w.Call("PUT", "/accounts/bob", euro), http.StatusOK)
	w.projected("ada", 4)
	w.projected("bob", 1)
	w.Want(w.Call("GET", "/accounts?limit=1", ""), http.StatusOK, `"customer":"ada"`, `"balance":1000`,
		`"next":"ada"`)
	w.Want(w.Call("GET", "/accounts?limit=1&after=ada", ""), http.StatusOK, `"customer":"bob"`)
	w.Want(w.Call("GET", "/accounts?page=2", ""), http.StatusBadRequest, "limit")
	w.Want(w.Call("GET", "/accounts/ada/statement", ""), http.StatusOK, `"amount":-300,"balance":700`,
		`"amount":300,"balance":1000`, id)
	w.Want(w.Call("GET", "/accounts/ada/statement?after=2&limit=1", ""), http.StatusOK,
		`"amount":-300`, `"next":"3"`)
	w.Want(w.Call("GET", "/accounts/ada/statement?after=x", ""), http.StatusBadRequest, "after")
	w.Want(w.Call("GET", "/accounts/ada/statement?limit=0", ""), http.StatusBadRequest, "limit")
	w.Want(w.Call("GET", "/accounts/eve/statement", ""), http.StatusNotFound, "eve")
	w.Want(w.Call("GET", "/accounts/eve/history", ""), http.StatusNotFound, "eve")
	history := w.Want(w.Call("GET", "/accounts/ada/history", ""), http.StatusOK, `"account.opened"`,
		`"funds.deposited:2"`[1:16], `"withdrawal.refunded"`, `"version":4`)
	if strings.Count(history.Body, `"version":`) != 4 {
		t.Errorf("history %s", history.Body)
	}
}

func TestAnAccountIsVerified(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.project()
	w.rich(1000)
	for range 40 {
		id := events.NewID()
		w.react(placed(id, 300), cancelled(id))
	}
	verify := func() webtest.Answer { return w.Call("POST", "/accounts/ada/verification", "") }
	w.projected("ada", 82)
	w.Want(verify(), http.StatusOK, `"events":82`, `"fits":true`)
	w.Want(w.Call("POST", "/accounts/eve/verification", ""), http.StatusNotFound, "eve")
	w.Want(w.Call("GET", "/verifications?limit=1", ""), http.StatusOK, `"customer":"ada"`,
		`"fits":true`, `"next":"ada"`)
	w.Want(w.Call("GET", "/verifications?after=%00", ""), http.StatusBadRequest, "query: ")
	w.Want(w.Call("GET", "/accounts?after=%ff", ""), http.StatusBadRequest, "query: ")
	w.DB.MustExec(`UPDATE account_balances_1 SET balance = 999`)
	w.Want(verify(), http.StatusOK, `"fits":false`, "account_balances has a balance of 999, by its "+
		"events it is 1000: rebuild it")
	w.DB.MustExec(`DELETE FROM account_balances_1`)
	w.DB.MustExec(`UPDATE eventstore SET recorded_at = now() - interval '2 minutes'`)
	w.Want(verify(), http.StatusOK, `"fits":false`, "account_balances is at version 0 of 82")
	// Somebody who knows how a snapshot is made has changed one, with its checksum.
	w.DB.MustExec(
		`UPDATE eventstore_snapshots SET state = replace(state, '"balance":', '"balance":1')`)
	w.DB.MustExec(`UPDATE eventstore_snapshots SET sum = sha256(sha256(convert_to(stream,
		'UTF8')) || sha256(int8send(version))
			|| sha256(int8send(fold::bigint)) || sha256(convert_to(state, 'UTF8')) || hash)`)
	w.Want(verify(), http.StatusOK, `"fits":false`, "with the snapshot the account is")
	w.DB.MustExec(`UPDATE eventstore SET payload = replace(payload::text, '300', '301')::json
		WHERE version = 17`)
	w.Want(verify(), http.StatusOK, `"fits":false`, `"version":17`, "hash")
}
