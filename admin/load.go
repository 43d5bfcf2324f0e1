package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// Load is what one replica has done since it was started, and what waits in the database of its
// service.
type Load struct {
	Service string `json:"service,omitempty"` // set by Client
	Replica string `json:"replica"`           // its host and process
	// Problem is why the replica does not publish or consume; empty: it does.
	Problem    string `json:"problem,omitempty"`
	Published  int64  `json:"published"` // confirmed events
	Handled    int64  `json:"handled"`
	Duplicates int64  `json:"duplicates"`
	Failed     int64  `json:"failed"` // attempts after which an event is tried again
	Parked     int64  `json:"parked"`
	// LagSeconds are the ages of the handled events when they were handled, added up.
	LagSeconds float64   `json:"lag_seconds"`
	Lagged     uint64    `json:"lagged"` // how many events those are
	Waiting    Backlog   `json:"waiting"`
	Breakers   []Breaker `json:"breakers"`
}

// Backlog is what waits in the database of a service, each number up to 10,000.
type Backlog struct {
	Unpublished        int64   `json:"unpublished"` // events in the outbox
	UnpublishedSeconds float64 `json:"unpublished_seconds"`
	Held               int64   `json:"held"`
	Retries            int64   `json:"retries"`
	Deadlines          int64   `json:"deadlines"`
	Calls              int64   `json:"calls"`
	OtherRelease       int64   `json:"other_release"` // only another release handles them
	// Overdue are those for whose time has come more than a minute ago.
	Overdue       int64   `json:"overdue"`
	Parked        int64   `json:"parked"`
	ParkedSeconds float64 `json:"parked_seconds"` // since the oldest one was received
}

// Loads asks every replica of every service. A replica that does not answer is missing, by the name
// of its service and its address.
func (c *Client) Loads(ctx context.Context) (loads []Load, missing []Missing) {
	return replicas[Load](ctx, c, "/admin/load", func(l *Load, service string) { l.Service = service })
}

// Breakers returns the circuit breakers of all replicas of all services, each once: with the worst
// state of the replicas and the sums of their numbers.
func (c *Client) Breakers(ctx context.Context) (all []Breaker, missing []Missing) {
	lists, missing := replicas[[]Breaker](ctx, c, "/admin/breakers",
		func(list *[]Breaker, service string) {
			for i := range *list {
				(*list)[i].Service = service
			}
		})
	return SumBreakers(slices.Concat(lists...)), missing
}

// replicas reads a path of every replica of every service. If no replica of a service answers, the
// service is missing as a whole.
func replicas[T any](ctx context.Context, c *Client, path string,
	named func(answer *T, service string)) (all []T, missing []Missing) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	type answers struct {
		all     []T
		missing []Missing
	}
	for _, of := range All(c.Services, func(service string) (a answers, err error) {
		addresses, err := c.Replicas(service)
		if err == nil && len(addresses) == 0 {
			err = fmt.Errorf("%s has no address", service)
		}
		if err != nil {
			return a, unreachable{err}
		}
		r := request{client: c, service: service, method: http.MethodGet, path: path}
		for _, one := range All(addresses, func(address string) (answer T, err error) {
			body, err := r.to(ctx, address)
			if err == nil {
				err = json.Unmarshal(body, &answer)
			}
			named(&answer, service)
			return answer, err
		}) {
			if err = one.Err; err != nil {
				a.missing = append(a.missing, NewMissing(service+" at "+one.Service, err))
				continue
			}
			a.all = append(a.all, one.Value)
		}
		if len(a.all) == 0 {
			return a, err
		}
		return a, nil
	}) {
		if of.Err != nil {
			missing = append(missing, NewMissing(of.Service, of.Err))
			continue
		}
		all, missing = append(all, of.Value.all...), append(missing, of.Value.missing...)
	}
	return append([]T{}, all...), append([]Missing{}, missing...)
}

// SumBreakers joins the breakers of replicas: each has the worst state, and the sums of the
// numbers.
func SumBreakers(breakers []Breaker) []Breaker {
	all, at := []Breaker{}, map[[2]string]int{}
	rank := map[BreakerState]int{Closed: 0, HalfOpen: 1, Open: 2}
	for _, b := range breakers {
		i, known := at[[2]string{b.Service, b.Name}]
		if !known {
			at[[2]string{b.Service, b.Name}] = len(all)
			all = append(all, b)
			continue
		}
		sum := &all[i]
		if rank[b.State] > rank[sum.State] {
			sum.State, sum.Since = b.State, b.Since
		}
		sum.Failures, sum.Opened = sum.Failures+b.Failures, sum.Opened+b.Opened
		sum.Refused += b.Refused
	}
	return all
}

func (s remote) Load(ctx context.Context) (l Load, err error) {
	err = s.get(ctx, "load", &l)
	l.Service = s.name
	return l, err
}
