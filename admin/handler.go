package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/quadrille-go/quadrille/events"
)

// The bounds of the endpoint.
const (
	maxParked  = 1000
	maxReplays = 100
	maxIDs     = 1000
	maxBody    = 2 * events.MaxSize // a payload in base64, with what else an edit has
	maxAgo     = 100 * 365 * 24 * time.Hour
)

// Handler serves a service to an operator:
//
//	GET  /admin/history/{subject}  the events and calls of a subject
//	GET  /admin/events/{id}      one event of the history, or one call
//	GET  /admin/waiting/{subject}  what waits about a subject
//	POST /admin/handled          the handled ones of {"ids": […]}
//	GET  /admin/published        the history without its data: ?limit=1000&after=seq
//	GET  /admin/audit            contradictions in the service's database
//	GET  /admin/parked           what is parked, in pages: ?limit=1000&after=
//	GET  /admin/parked/{id}      one of them, with its bytes
//	POST /admin/parked/{id}/dry-run  handle it, and roll everything back
//	POST /admin/parked/redrive   handle {"ids": […], "operator": …, "reason": …} again, now
//	POST /admin/parked/discard   the same body: remove them for good
//	POST /admin/parked/{id}/edit     {"operator": …, "reason": …, "was": digest, "body": base64}
//	GET  /admin/repairs          what operators did, in pages: ?limit=100&after=
//	POST /admin/replay        publish {"ids": […]}, or all events since {"since": time}, again
//	GET  /admin/load             what this replica has done, and what waits
//	GET  /admin/breakers         the circuit breakers of this replica
//	GET  /admin/replay        the requests to do so, in pages: ?limit=100&after=
//	GET  /admin/held             events that the broker did not accept: ?limit=100&after=seq
//	GET  /admin/relay            the relay: its leader, source and replicas
//	POST /admin/relay            use {"source": "window"} or {"source": "stream"}
//	GET  /admin/projections      the projections and their progress
//	POST /admin/projections/{name}/rebuild  fill one again, while the current one is read
//
// Errors of the service that are no Problem become one through problem.
func Handler(s Service, problem func(error) Problem) http.Handler {
	mux := http.NewServeMux()
	route := func(pattern string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			body, err := f(r)
			if err == nil {
				write(w, http.StatusOK, "application/json", body)
				return
			}
			var p Problem
			if !errors.As(err, &p) {
				p = problem(err)
			}
			if p.Status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", "1")
			}
			write(w, p.Status, "application/problem+json", p.titled())
		})
	}
	route("GET /admin/history/{subject}", func(r *http.Request) (any, error) {
		return s.History(r.Context(), r.PathValue("subject"))
	})
	route("GET /admin/events/{id}", func(r *http.Request) (any, error) {
		if !areIDs([]string{r.PathValue("id")}) {
			return nil, badRequest("the id must be a UUID")
		}
		return s.Event(r.Context(), r.PathValue("id"))
	})
	route("GET /admin/waiting/{subject}", func(r *http.Request) (any, error) {
		return s.Waiting(r.Context(), r.PathValue("subject"))
	})
	route("POST /admin/handled", func(r *http.Request) (any, error) { return handled(s, r) })
	route("GET /admin/published", func(r *http.Request) (any, error) { return published(s, r) })
	route("GET /admin/audit", func(r *http.Request) (any, error) { return s.Audit(r.Context()) })
	route("GET /admin/parked", func(r *http.Request) (any, error) { return parked(s, r) })
	route("GET /admin/parked/{id}", func(r *http.Request) (any, error) {
		return s.ParkedEvent(r.Context(), r.PathValue("id"))
	})
	route("POST /admin/parked/{id}/dry-run", func(r *http.Request) (any, error) {
		return s.DryRun(r.Context(), r.PathValue("id"))
	})
	route("POST /admin/parked/redrive", func(r *http.Request) (any, error) { return redrive(s, r) })
	route("POST /admin/parked/discard", func(r *http.Request) (any, error) { return discard(s, r) })
	route("POST /admin/parked/{id}/edit", func(r *http.Request) (any, error) { return edit(s, r) })
	route("GET /admin/repairs", func(r *http.Request) (any, error) { return repairs(s, r) })
	route("POST /admin/replay", func(r *http.Request) (any, error) { return replay(s, r) })
	route("GET /admin/load", func(r *http.Request) (any, error) { return s.Load(r.Context()) })
	route("GET /admin/breakers", func(r *http.Request) (any, error) { return s.Breakers(r.Context()) })
	route("GET /admin/replay", func(r *http.Request) (any, error) { return replays(s, r) })
	route("GET /admin/held", func(r *http.Request) (any, error) { return heldEvents(s, r) })
	route("GET /admin/relay", func(r *http.Request) (any, error) { return s.Relay(r.Context()) })
	route("POST /admin/relay", func(r *http.Request) (any, error) { return useSource(s, r) })
	route("GET /admin/projections", func(r *http.Request) (any, error) {
		return s.Projections(r.Context())
	})
	route("POST /admin/projections/{name}/rebuild", func(r *http.Request) (any, error) {
		return s.Rebuild(r.Context(), r.PathValue("name"))
	})
	return mux
}

func write(w http.ResponseWriter, status int, contentType string, body any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone when this fails
}

func handled(s Service, r *http.Request) (any, error) {
	var request struct {
		IDs []string `json:"ids"`
	}
	err := json.NewDecoder(r.Body).Decode(&request)
	if err != nil || !areIDs(request.IDs) {
		return nil, badRequest(`the body must be {"ids": [at most %d UUIDs]}`, maxIDs)
	}
	return s.Handled(r.Context(), request.IDs)
}

// areIDs reports whether these are not too many ids of events.
func areIDs(ids []string) bool {
	for _, id := range ids {
		if _, err := events.ParseID(id); err != nil {
			return false
		}
	}
	return len(ids) <= maxIDs
}

func parked(s Service, r *http.Request) (any, error) {
	limit, err := pageLimit(r, maxParked)
	if err != nil {
		return nil, err
	}
	return s.Parked(r.Context(), r.URL.Query().Get("after"), limit)
}

// pageLimit returns the size of the page that is asked for.
func pageLimit(r *http.Request, most int) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return most, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, badRequest("limit: must be between 1 and %d", most)
	}
	return n, nil
}

// replay takes a request to publish again; the leading replica executes it.
func replay(s Service, r *http.Request) (any, error) {
	var request ReplayRequest
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&request)
	ago := request.AgoSeconds
	if err != nil || !areIDs(request.IDs) || ago < 0 || ago > maxAgo.Seconds() ||
		!oneOf(len(request.IDs) > 0, request.Since != nil, ago > 0) {
		return nil, badRequest(`the body must be {"ids": [1 to %d UUIDs]}, {"since": a time as in `+
			`RFC 3339} or {"ago_seconds": more than 0}`, maxIDs)
	}
	id, err := s.Replay(r.Context(), request)
	return map[string]int64{"id": id}, err
}

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

func replays(s Service, r *http.Request) (any, error) {
	limit, err := pageLimit(r, maxReplays)
	if err != nil {
		return nil, err
	}
	after, err := pageAfter(r)
	if err != nil {
		return nil, err
	}
	return s.Replays(r.Context(), after, limit)
}

func useSource(s Service, r *http.Request) (any, error) {
	var request struct {
		Source string `json:"source"`
	}
	err := json.NewDecoder(r.Body).Decode(&request)
	if err != nil || request.Source != "window" && request.Source != "stream" {
		return nil, badRequest(`the body must be {"source": "window"} or {"source": "stream"}`)
	}
	return s.UseSource(r.Context(), request.Source)
}
