package payments

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/web"
)

// The bounds of a page of an account's history.
const (
	defaultListed = 100
	maxListed     = 1000
)

// accounts lists balances as the projection has them, a moment behind, in the order of customers.
func (a api) accounts(w http.ResponseWriter, r *http.Request) error {
	limit, err := web.Page(r, defaultListed, maxListed)
	if err != nil {
		return err
	}
	after, err := customerAfter(r)
	if err != nil {
		return err
	}
	found, err := web.GetAll[Balance](r.Context(), a.service, "SELECT "+web.Columns[Balance]()+
		` FROM account_balances WHERE customer > $1 ORDER BY customer LIMIT $2`, after, limit)
	if err != nil {
		return err
	}
	page := struct {
		Accounts []Balance `json:"accounts"`
		Next     string    `json:"next,omitzero"` // pass it as after
	}{Accounts: found}
	if len(found) == limit {
		page.Next = found[limit-1].Customer
	}
	return web.Write(w, http.StatusOK, page)
}

// statement lists what has moved an account's money, as the projection has it, a moment behind.
func (a api) statement(w http.ResponseWriter, r *http.Request) error {
	customer, after, limit, err := pageOf(r)
	if err != nil {
		return err
	}
	found, err := web.GetAll[Entry](r.Context(), a.service,
		"SELECT "+web.Columns[Entry]()+` FROM account_statement WHERE customer = $1 AND version > $2
			ORDER BY version LIMIT $3`, customer, after, limit)
	if err != nil {
		return err
	}
	if len(found) == 0 && after == 0 {
		return web.NotFound("statement of", customer)
	}
	page := struct {
		Entries []Entry `json:"entries"`
		Next    string  `json:"next,omitzero"` // pass it as after
	}{Entries: found}
	if len(found) == limit {
		page.Next = fmt.Sprint(found[limit-1].Version)
	}
	return web.Write(w, http.StatusOK, page)
}

// Event is a stored fact as a person sees it.
type Event struct {
	Version       int64           `json:"version"`
	ID            string          `json:"id"`
	Type          string          `json:"type"`
	DataSchema    string          `json:"dataschema"`
	Time          time.Time       `json:"time"`
	CorrelationID string          `json:"correlation_id"`
	CausationID   string          `json:"causation_id,omitzero"`
	Data          json.RawMessage `json:"data"` // as it was written
}

// history lists the stored facts of an account as they are.
func (a api) history(w http.ResponseWriter, r *http.Request) error {
	customer, after, limit, err := pageOf(r)
	if err != nil {
		return err
	}
	db, err := a.service.DB(r.Context())
	if err != nil {
		return err
	}
	facts, err := eventstore.Read(r.Context(), db, streamOf(customer), after, limit)
	if err != nil {
		return err
	}
	if len(facts) == 0 && after == 0 {
		return web.NotFound("account of", customer)
	}
	page := struct {
		Events []Event `json:"events"`
		Next   string  `json:"next,omitzero"` // pass it as after
	}{Events: []Event{}}
	for _, f := range facts {
		page.Events = append(page.Events, Event{
			f.Version, f.Record.ID, f.Record.Type, f.Record.DataSchema, f.Record.Time,
			f.Record.CorrelationID, f.Record.CausationID, f.Record.Data,
		})
	}
	if len(facts) == limit {
		page.Next = fmt.Sprint(facts[limit-1].Version)
	}
	return web.Write(w, http.StatusOK, page)
}

func pageOf(r *http.Request) (customer string, after int64, limit int, err error) {
	if customer, err = web.Name(r, "customer"); err != nil {
		return "", 0, 0, err
	}
	if text := r.URL.Query().Get("after"); text != "" {
		if after, err = strconv.ParseInt(text, 10, 64); err != nil || after < 0 {
			return "", 0, 0, web.Problemf(http.StatusBadRequest, "after: must be the version of an event")
		}
	}
	limit, err = web.Page(r, defaultListed, maxListed)
	return customer, after, limit, err
}

// customerAfter is the last customer of the page before.
func customerAfter(r *http.Request) (string, error) {
	after := r.URL.Query().Get("after")
	if after == "" {
		return "", nil
	}
	return after, web.Check(fulfilment.CheckName("after", after))
}
