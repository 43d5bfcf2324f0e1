package payments

import (
	"context"
	"net/http"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/web"
)

func (a api) open(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Currency string `json:"currency"`
	}
	_, err := web.ReadJSON(w, r, &in)
	if err != nil {
		return err
	}
	customer := r.PathValue("customer")
	if err := web.Check(fulfilment.CheckName("customer", customer),
		fulfilment.CheckCurrency(in.Currency)); err != nil {
		return err
	}
	account, err := a.command(r.Context(), customer, Open{Customer: customer, Currency: in.Currency})
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, account)
}

func (a api) deposit(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Amount   int64  `json:"amount"`
		Currency string `json:"currency"`
	}
	body, err := web.ReadJSON(w, r, &in)
	if err != nil {
		return err
	}
	customer := r.PathValue("customer")
	if err := web.Check(fulfilment.CheckName("customer", customer), fulfilment.CheckAmount(in.Amount,
		in.Currency)); err != nil {
		return err
	}
	return web.Once(w, r, a.service, body, func(ctx context.Context, _ *sqlx.Tx) (web.Answer, error) {
		account, err := a.command(ctx, customer, Deposit{Customer: customer, Currency: in.Currency,
			Amount: in.Amount})
		return web.Answer{Status: http.StatusCreated, Location: "/accounts/" + customer, Body: account},
			err
	})
}

// command executes a command about one account and returns the account after it.
func (a api) command(ctx context.Context, customer string, c events.Payload) (Account, error) {
	s, err := quadrille.Execute(ctx, a.service, Participant, c)
	if err != nil {
		return Account{}, err
	}
	account, _ := s.Accounts.Get(customer)
	return account, nil
}

// close closes an account; money that is in it stays there, and refunds still come.
func (a api) close(w http.ResponseWriter, r *http.Request) error {
	customer, err := web.Name(r, "customer")
	if err != nil {
		return err
	}
	account, err := a.command(r.Context(), customer, Close{Customer: customer})
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, account)
}

// account is folded from the stream, so that a client reads what it has just written.
func (a api) account(w http.ResponseWriter, r *http.Request) error {
	customer, err := web.Name(r, "customer")
	if err != nil {
		return err
	}
	db, err := a.service.DB(r.Context())
	if err != nil {
		return err
	}
	found, err := eventstore.Fold[Account](r.Context(), db, streamOf(customer))
	if err != nil {
		return err
	}
	account, ok := found[streamOf(customer)]
	if !ok {
		return web.NotFound("account of", customer)
	}
	return web.Write(w, http.StatusOK, account.State)
}

func streamOf(customer string) string { return eventstore.StreamOf("account", customer) }
