package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/quadrille-go/quadrille/events"
)

// EditRequest replaces the body of a parked event.
type EditRequest struct {
	Operator string `json:"operator"` // who asks for it, for the record
	Reason   string `json:"reason"`   // why, for the record
	// Was is the Digest of the body that the operator has seen. If another operator has changed it
	// meanwhile, nothing happens.
	Was  string `json:"was"`
	Body []byte `json:"body"`
}

// Digest returns the SHA-256 of a body, in hexadecimal digits.
func Digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func edit(s Service, r *http.Request) (any, error) {
	var q EditRequest
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&q); err != nil {
		return nil, badRequest(`the body must be {"operator": …, "reason": …, "was": …, "body": …}: %v`,
			err)
	}
	if q.Reason == "" {
		return nil, badRequest("reason: must say why, since the event is no longer what was published")
	}
	if len(q.Body) == 0 || len(q.Body) > events.MaxSize {
		return nil, badRequest("body: %d bytes, must have 1 to %d", len(q.Body), events.MaxSize)
	}
	var err error
	if q.Operator, err = onRecord(r.Context(), q.Operator, q.Reason); err != nil {
		return nil, err
	}
	return s.Edit(r.Context(), r.PathValue("id"), q)
}

func (s remote) Edit(ctx context.Context, id string, q EditRequest) (e ParkedEvent, err error) {
	err = s.post(ctx, "parked/"+url.PathEscape(id)+"/edit", q, &e)
	e.Service = s.name
	return e, err
}
