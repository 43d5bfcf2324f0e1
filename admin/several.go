package admin

import (
	"context"
	"sync"
)

// Answer is what a service answered to a call, or its error.
type Answer[T any] struct {
	Service string
	Value   T
	Err     error
}

// All calls the named services at the same time, and returns their answers in the order of the
// names.
func All[T any](services []string, call func(service string) (T, error)) []Answer[T] {
	answers := make([]Answer[T], len(services))
	var calling sync.WaitGroup
	for i, service := range services {
		calling.Go(func() {
			value, err := call(service)
			answers[i] = Answer[T]{service, value, err}
		})
	}
	calling.Wait()
	return answers
}

// Missing is a service that did not answer, and why.
type Missing struct {
	Service string `json:"service"`
	Error   string `json:"error"`
	Err     error  `json:"-"` // whose text is Error
}

// NewMissing is a service that did not answer because of err.
func NewMissing(service string, err error) Missing {
	return Missing{Service: service, Error: err.Error(), Err: err}
}

// Union names each missing service once, with the error of the first list that has it.
func Union(a, b []Missing) []Missing {
	all := append([]Missing{}, a...)
	for _, m := range b {
		if !away(all, m.Service) {
			all = append(all, m)
		}
	}
	return all
}

// Collect gets a list from each service at the same time, and joins the lists in the order of the
// services. Those that did not answer are missing.
func Collect[T any](services []string, call func(service string) ([]T, error)) (all []T,
	missing []Missing) {
	all, missing = []T{}, []Missing{}
	for _, a := range All(services, call) {
		if a.Err != nil {
			missing = append(missing, NewMissing(a.Service, a.Err))
			continue
		}
		all = append(all, a.Value...)
	}
	return all, missing
}

// ParkedList is what the services that answer have parked.
type ParkedList struct {
	Parked  []Parked  `json:"parked"`
	Missing []Missing `json:"missing"`
	More    []string  `json:"more,omitempty"` // services that have parked more than the limit
}

// Parked collects from every service what waits for a person: all pages of it, or at most limit
// events of each unless that is 0.
func (c *Client) Parked(ctx context.Context, limit int) ParkedList {
	all := ParkedList{Parked: []Parked{}, Missing: []Missing{}}
	for _, a := range All(c.Services, func(service string) (ParkedPage, error) {
		return c.parkedOf(ctx, service, limit)
	}) {
		switch {
		case a.Err != nil:
			all.Missing = append(all.Missing, NewMissing(a.Service, a.Err))
		case a.Value.Next != "":
			all.More = append(all.More, a.Service)
		}
		all.Parked = append(all.Parked, a.Value.Parked...)
	}
	return all
}

// parkedOf joins the pages of one service.
func (c *Client) parkedOf(ctx context.Context, service string, limit int) (all ParkedPage,
	err error) {
	for {
		size := maxParked
		if limit > 0 {
			size = min(size, limit-len(all.Parked))
		}
		page, err := c.Service(service).Parked(ctx, all.Next, size)
		if err != nil {
			return ParkedPage{}, err
		}
		all.Parked, all.Next = append(all.Parked, page.Parked...), page.Next
		if page.Next == "" || limit > 0 && len(all.Parked) >= limit {
			return all, nil
		}
	}
}
