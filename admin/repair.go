package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// The bounds of a repair.
const (
	maxRepairs   = 100  // on record, in one page
	maxOperator  = 200  // bytes of a name
	maxReason    = 2000 // bytes
	maxParkedKey = 1000 // bytes of an id
)

// RepairRequest says what to redrive or to discard.
type RepairRequest struct {
	IDs      []string `json:"ids"`              // of what is parked, at most 1000
	Operator string   `json:"operator"`         // who asks for it, for the record
	Reason   string   `json:"reason,omitempty"` // why, for the record; a discard needs one
}

// Repaired is what became of a RepairRequest, by id. It is done as a whole or not at all, and may
// be repeated.
type Repaired struct {
	Service string   `json:"service,omitempty"` // set by Client
	Done    []string `json:"done"`
	// Evidence was not redriven: it is malformed or contradictory, and can only be discarded.
	Evidence []string `json:"evidence"`
	Absent   []string `json:"absent"` // nothing is parked under these ids any more
}

// Repair is what an operator did to something that was parked, on record.
type Repair struct {
	Service   string    `json:"service,omitempty"` // set by Client
	ID        int64     `json:"id"`                // of the record
	Owner     string    `json:"owner"`
	Parked    string    `json:"parked"` // the id of what was parked
	Type      string    `json:"type"`
	Action    string    `json:"action"` // redrive, discard or edit
	Operator  string    `json:"operator"`
	Reason    string    `json:"reason,omitempty"`
	ParkedFor string    `json:"parked_for"`
	At        time.Time `json:"at"`
}

// RepairPage is a page of the repairs on record, the newest first.
type RepairPage struct {
	Repairs []Repair `json:"repairs"`
	// the parameter after of the next page; empty: the last one
	Next string `json:"next,omitempty"`
}

type operatorKey struct{}

// WithOperator says who makes a request, as a program knows that has authenticated the client. The
// record of a repair then names this operator first, and the one of the request in parentheses.
func WithOperator(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, operatorKey{}, name)
}

// operatorOf joins who is known to make the request with who claims to.
func operatorOf(ctx context.Context, claimed string) string {
	known, _ := ctx.Value(operatorKey{}).(string)
	if known == "" || claimed == "" || known == claimed {
		return cmp.Or(known, claimed)
	}
	return known + " (" + claimed + ")"
}

// repairRequest reads the body of a repair.
func repairRequest(r *http.Request) (q RepairRequest, err error) {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&q); err != nil {
		return q, badRequest(`the body must be {"ids": […], "operator": …, "reason": …}: %v`, err)
	}
	if len(q.IDs) == 0 || len(q.IDs) > maxIDs {
		return q, badRequest("ids: %d, must be 1 to %d", len(q.IDs), maxIDs)
	}
	for _, id := range q.IDs {
		if id == "" || len(id) > maxParkedKey {
			return q, badRequest("ids: %.64q has %d bytes, must have 1 to %d", id, len(id), maxParkedKey)
		}
	}
	q.Operator, err = onRecord(r.Context(), q.Operator, q.Reason)
	return q, err
}

// onRecord returns who makes a repair, for the record.
func onRecord(ctx context.Context, claimed, reason string) (operator string, err error) {
	if len(claimed) > maxOperator || len(reason) > maxReason {
		return "", badRequest("operator and reason: must have at most %d and %d bytes", maxOperator,
			maxReason)
	}
	if operator = operatorOf(ctx, claimed); operator == "" {
		return "", badRequest("operator: must say who asks for it, since the repair is on record")
	}
	return operator, nil
}

func redrive(s Service, r *http.Request) (any, error) {
	q, err := repairRequest(r)
	if err != nil {
		return nil, err
	}
	return s.Redrive(r.Context(), q)
}

func discard(s Service, r *http.Request) (any, error) {
	q, err := repairRequest(r)
	if err == nil && q.Reason == "" {
		err = badRequest("reason: must say why, since what is discarded is never handled")
	}
	if err != nil {
		return nil, err
	}
	return s.Discard(r.Context(), q)
}

func repairs(s Service, r *http.Request) (any, error) {
	limit, err := pageLimit(r, maxRepairs)
	if err != nil {
		return nil, err
	}
	after, err := pageAfter(r)
	if err != nil {
		return nil, err
	}
	return s.Repairs(r.Context(), after, limit)
}

// pageAfter returns the id after which the page begins that is asked for; 0: the first page.
func pageAfter(r *http.Request) (int64, error) {
	text := r.URL.Query().Get("after")
	if text == "" {
		return 0, nil
	}
	after, err := strconv.ParseInt(text, 10, 64)
	if err != nil || after < 1 {
		return 0, badRequest("after: must be the field next of an earlier page")
	}
	return after, nil
}

func (s remote) Redrive(ctx context.Context, q RepairRequest) (r Repaired, err error) {
	err = s.post(ctx, "parked/redrive", q, &r)
	r.Service = s.name
	return r, err
}

func (s remote) Discard(ctx context.Context, q RepairRequest) (r Repaired, err error) {
	err = s.post(ctx, "parked/discard", q, &r)
	r.Service = s.name
	return r, err
}

func (s remote) Repairs(ctx context.Context, after int64, limit int) (page RepairPage, err error) {
	err = s.get(ctx, "repairs?"+pageOfID(after, limit), &page)
	for i := range page.Repairs {
		page.Repairs[i].Service = s.name
	}
	return page, err
}
