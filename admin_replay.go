package quadrille

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/outbox"
)

// maxAgo bounds how far back a request reaches.
const maxAgo = 100 * 365 * 24 * time.Hour

// oneOf reports whether exactly one of them is so.
func oneOf(are ...bool) bool {
	n := 0
	for _, is := range are {
		if is {
			n++
		}
	}
	return n == 1
}

// replay takes a request to publish again; the leading replica executes it.
func (s *Service) replay(w http.ResponseWriter, r *http.Request) {
	var request struct {
		IDs   []string   `json:"ids"`
		Since *time.Time `json:"since"`
		Ago   float64    `json:"ago_seconds"` // since then by the database's clock
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&request)
	for _, id := range request.IDs {
		if _, bad := events.ParseID(id); bad != nil {
			err = bad
		}
	}
	if err != nil || len(request.IDs) > maxIDs || request.Ago < 0 || request.Ago > maxAgo.Seconds() ||
		!oneOf(len(request.IDs) > 0, request.Since != nil, request.Ago > 0) {
		writeProblem(w, http.StatusBadRequest, `the body must be {"ids": [1 to 1000 UUIDs]}, `+
			`{"since": a time as in RFC 3339} or {"ago_seconds": more than 0}`)
		return
	}
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	if request.Ago > 0 {
		// Events have times of the database's clock, and another one may differ.
		db, err := s.DB(r.Context())
		if err == nil {
			err = db.GetContext(r.Context(), &request.Since, `SELECT clock_timestamp() - $1 * interval
				'1 second'`, request.Ago)
		}
		if err != nil {
			s.problem(w, err)
			return
		}
	}
	var id int64
	if request.Since != nil {
		id, err = p.outbox.ReplaySince(r.Context(), *request.Since)
	} else {
		id, err = p.outbox.ReplayIDs(r.Context(), request.IDs...)
	}
	switch {
	case errors.Is(err, outbox.ErrNoSuchEvent):
		writeProblem(w, http.StatusNotFound, err.Error())
	case err != nil:
		s.problem(w, err)
	default:
		answer(w, map[string]int64{"id": id})
	}
}

func (s *Service) replays(w http.ResponseWriter, r *http.Request) {
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	limit, ok := pageLimit(w, r, outbox.MaxReplays)
	if !ok {
		return
	}
	var after int64
	if text := r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseInt(text, 10, 64); err != nil || after < 1 {
			writeProblem(w, http.StatusBadRequest, "after: must be the field next of an earlier page")
			return
		}
	}
	list, next, err := p.outbox.Replays(r.Context(), after, limit)
	if err != nil {
		s.problem(w, err)
		return
	}
	page := admin.ReplayPage{Replays: make([]admin.Replay, len(list))}
	for i, r := range list {
		page.Replays[i] = admin.Replay(r)
	}
	if next != 0 {
		page.Next = strconv.FormatInt(next, 10)
	}
	answer(w, page)
}
