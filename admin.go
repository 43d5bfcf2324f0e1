package quadrille

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/topology"
)

// The bounds of the admin endpoint.
const (
	maxParked    = 1000
	maxHistory   = 1000 // events, and calls, of one subject
	maxIDs       = 1000
	maxAdminBody = 64 << 10
)

// Admin returns the handler of the admin endpoint, which the command line uses:
//
//	GET  /admin/history/{subject}  the events and calls of a subject
//	POST /admin/handled          the handled ones of {"ids": […]}
//	GET  /admin/parked           what is parked, in pages: ?limit=1000&after=
//	GET  /admin/parked/{id}      one of them, with its bytes
//	POST /admin/parked/{id}/dry-run  handle it, and roll everything back
//	POST /admin/replay        publish {"ids": […]}, or all events since {"since": time}, again
//	GET  /admin/breakers         the circuit breakers of this replica
//	GET  /admin/replay        the requests to do so, in pages: ?limit=100&after=
//	GET  /admin/relay            the relay: its leader, source and replicas
//	POST /admin/relay            use {"source": "window"} or {"source": "stream"}
//	GET  /admin/projections      the projections and their progress
//	POST /admin/projections/{name}/rebuild  fill one again, while the current one is read
//
// It has no authentication of its own: wrap it, and do not serve it to everybody.
func (s *Service) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /admin/history/{subject}", s.history)
	mux.HandleFunc("POST /admin/handled", s.handled)
	mux.HandleFunc("GET /admin/parked", s.parked)
	mux.HandleFunc("GET /admin/parked/{id}", s.parkedOne)
	mux.HandleFunc("POST /admin/parked/{id}/dry-run", s.dryRun)
	mux.HandleFunc("POST /admin/replay", s.replay)
	mux.HandleFunc("GET /admin/breakers", s.breakers)
	mux.HandleFunc("GET /admin/replay", s.replays)
	mux.HandleFunc("GET /admin/relay", s.relayState)
	mux.HandleFunc("POST /admin/relay", s.relayUse)
	mux.HandleFunc("GET /admin/projections", s.projections)
	mux.HandleFunc("POST /admin/projections/{name}/rebuild", s.rebuild)
	return mux
}

func (s *Service) history(w http.ResponseWriter, r *http.Request) {
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	records, err := p.outbox.History(r.Context(), r.PathValue("subject"))
	if err != nil {
		s.problem(w, err)
		return
	}
	calls, err := p.inbox.Calls(r.Context(), r.PathValue("subject"), maxHistory)
	if err != nil {
		s.problem(w, err)
		return
	}
	history := make([]admin.Event, 0, len(records)+len(calls))
	for _, r := range records {
		history = append(history, publishedOf(r))
	}
	for _, c := range calls {
		history = append(history, admin.Event{
			ID: c.ID, Type: c.Type, Source: topology.SourceOf(s.config.Name),
			Subject:       r.PathValue("subject"),
			CorrelationID: c.CorrelationID, CausationID: c.CausationID, Time: c.RequestedAt,
			Data: c.Request, Due: c.Due, Call: &admin.Call{
				Attempts: c.Attempts, Reason: c.Reason, Parked: c.Due == nil && c.AnsweredAt == nil,
				Answer: c.AnswerType, AnswerData: c.Answer, AnsweredAt: c.AnsweredAt,
			},
		})
	}
	answer(w, history)
}

func publishedOf(r events.Record) admin.Event {
	return admin.Event{
		ID: r.ID, Type: r.Type, Source: r.Source, Subject: r.Subject, CorrelationID: r.CorrelationID,
		CausationID: r.CausationID, Time: r.Time, Data: r.Data,
	}
}

func (s *Service) handled(w http.ResponseWriter, r *http.Request) {
	var request struct {
		IDs []string `json:"ids"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody)).Decode(&request)
	for _, id := range request.IDs {
		if _, bad := events.ParseID(id); bad != nil {
			err = bad
		}
	}
	if err != nil || len(request.IDs) > maxIDs {
		writeProblem(w, http.StatusBadRequest, `the body must be {"ids": [at most 1000 UUIDs]}`)
		return
	}
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	handled, err := p.inbox.Handled(r.Context(), request.IDs...)
	if err != nil {
		s.problem(w, err)
		return
	}
	all := make([]admin.Handled, len(handled))
	for i, h := range handled {
		all[i] = admin.Handled(h)
	}
	answer(w, all)
}

func (s *Service) parked(w http.ResponseWriter, r *http.Request) {
	p := s.partsFor(w, r)
	if p == nil {
		return
	}
	limit, ok := pageLimit(w, r, maxParked)
	if !ok {
		return
	}
	list, next, err := p.inbox.ListParked(r.Context(), r.URL.Query().Get("after"), limit)
	switch {
	case errors.Is(err, inbox.ErrNotFound):
		writeProblem(w, http.StatusBadRequest, "after: must be the field next of an earlier page")
	case err != nil:
		s.problem(w, err)
	default:
		page := admin.ParkedPage{Parked: make([]admin.Parked, len(list)), Next: next}
		for i, p := range list {
			page.Parked[i] = admin.Parked{Owner: p.Owner, ID: p.Key, Kind: string(p.Kind), Type: p.Type,
				Size: p.Size, Attempts: p.Attempts, Reason: p.Reason, CreatedAt: p.CreatedAt,
				UpdatedAt: p.UpdatedAt}
		}
		answer(w, page)
	}
}

// pageLimit returns the size of the page that is asked for. It answers the request itself unless
// ok.
func pageLimit(w http.ResponseWriter, r *http.Request, most int) (limit int, ok bool) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return most, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		writeProblem(w, http.StatusBadRequest, fmt.Sprintf("limit: must be between 1 and %d", most))
		return 0, false
	}
	return n, true
}

func (s *Service) parkedOne(w http.ResponseWriter, r *http.Request) {
	if _, found, ok := s.findParked(w, r); ok {
		answer(w, found)
	}
}

// findParked answers the request itself unless ok.
func (s *Service) findParked(w http.ResponseWriter, r *http.Request) (p *parts, found inbox.Pending,
	ok bool) {
	if p = s.partsFor(w, r); p == nil {
		return nil, found, false
	}
	found, err := p.inbox.Find(r.Context(), r.PathValue("id"))
	if errors.Is(err, inbox.ErrNotFound) || err == nil && found.Due != nil {
		writeProblem(w, http.StatusNotFound, "nothing is parked under this id")
		return nil, found, false
	}
	if err != nil {
		s.problem(w, err)
		return nil, found, false
	}
	return p, found, true
}

// BreakerLister is a component that has circuit breakers around outside calls, such as
// resilience.Breakers.
type BreakerLister interface{ BreakerStates() []admin.Breaker }

// Breakers returns the circuit breakers of this replica.
func (s *Service) Breakers() []admin.Breaker {
	all := []admin.Breaker{}
	for _, c := range s.config.Components {
		if lister, ok := c.(BreakerLister); ok {
			all = append(all, lister.BreakerStates()...)
		}
	}
	return all
}

func (s *Service) breakers(w http.ResponseWriter, _ *http.Request) { answer(w, s.Breakers()) }

// partsFor answers 503 and returns nil when the database is not there yet.
func (s *Service) partsFor(w http.ResponseWriter, r *http.Request) *parts {
	p, err := s.parts(r.Context())
	if err != nil {
		s.problem(w, err)
		return nil
	}
	return p
}

// problem answers a request that the database has refused, or could not execute.
func (s *Service) problem(w http.ResponseWriter, err error) {
	if pg.ClassOf(err) == pg.BadData {
		writeProblem(w, http.StatusBadRequest, "the request contains text that PostgreSQL cannot store")
		return
	}
	s.config.Log.Error().Err(err).Msg("admin request")
	w.Header().Set("Retry-After", "1")
	writeProblem(w, http.StatusServiceUnavailable, "the service's database cannot be read")
}

// writeProblem answers with RFC 9457 problem details.
func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": strings.ToLower(http.StatusText(status)),
		"status": status, "detail": detail})
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // the client has gone when this fails
}
