package admin

import (
	"context"
	"net/http"
	"time"
)

// maxHeld is how many held events are in one page.
const maxHeld = 100

// HeldEvent is an event in the outbox that the broker did not accept.
type HeldEvent struct {
	Service string `json:"service,omitempty"` // set by Client
	Seq     int64  `json:"seq"`
	Subject string `json:"subject"`
	ID      string `json:"id,omitempty"` // empty: its row is not in the outbox
	Type    string `json:"type,omitempty"`
	// Kind is refused, unroutable, quarantined or unseen.
	Kind     string     `json:"kind"`
	Reason   string     `json:"reason"`
	Attempts int        `json:"attempts"`
	Due      *time.Time `json:"due,omitempty"` // nil: a person must repair the cause first
	Behind   int64      `json:"behind"`        // later events of its subject that wait for it
}

func heldEvents(s Service, r *http.Request) (any, error) {
	limit, err := pageLimit(r, maxHeld)
	if err != nil {
		return nil, err
	}
	after, err := pageAfter(r)
	if err != nil {
		return nil, err
	}
	return s.Held(r.Context(), after, limit)
}

func (s remote) Held(ctx context.Context, after int64, limit int) (list []HeldEvent, err error) {
	err = s.get(ctx, "held?"+pageOfID(after, limit), &list)
	for i := range list {
		list[i].Service = s.name
	}
	return list, err
}
