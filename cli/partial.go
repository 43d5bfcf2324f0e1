package cli

import (
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Missing is a service that did not answer, and why.
type Missing struct {
	Service string `json:"service"`
	Error   string `json:"error"`

	err error
}

// NewMissing is a service that did not answer because of err.
func NewMissing(service string, err error) Missing {
	return Missing{Service: service, Error: err.Error(), err: err}
}

// MissingError returns the first error of services that did not answer, nil when all did.
func MissingError(missing []Missing) error {
	if len(missing) == 0 {
		return nil
	}
	return missing[0].err
}

// each calls all services at the same time, and returns those that did not answer.
func (e *Env) each(call func(service string) error) []Missing {
	names := make([]string, len(e.App.Topology.Services))
	for i, s := range e.App.Topology.Services {
		names[i] = s.Name
	}
	missing := []Missing{}
	for i, err := range atOnce(names, call) {
		if err != nil {
			missing = append(missing, NewMissing(names[i], err))
		}
	}
	return missing
}

// change calls the named services at the same time to change something. It returns those that
// cannot be reached, and the errors of those that answered and did not do it.
func change(services []string, call func(service string) error) (missing []Missing, failed error) {
	missing = []Missing{}
	for i, err := range atOnce(services, call) {
		if IsUnreachable(err) {
			missing = append(missing, NewMissing(services[i], err))
		} else {
			failed = errors.Join(failed, err)
		}
	}
	return missing, failed
}

// atOnce calls the named services at the same time, and returns the error of each.
func atOnce(services []string, call func(service string) error) []error {
	errs := make([]error, len(services))
	var calling sync.WaitGroup
	for i, service := range services {
		calling.Go(func() { errs[i] = call(service) })
	}
	calling.Wait()
	return errs
}

// collect gets a list from all services at the same time, and joins the lists in the order of the
// services.
func collect[T any](e *Env, call func(service string) ([]T, error)) (all []T, missing []Missing) {
	var mu sync.Mutex
	found := map[string][]T{}
	missing = e.each(func(service string) error {
		list, err := call(service)
		if err == nil {
			mu.Lock()
			found[service] = list
			mu.Unlock()
		}
		return err
	})
	all = []T{}
	for _, s := range e.App.Topology.Services {
		all = append(all, found[s.Name]...)
	}
	return all, missing
}

// partial makes the error of a command that calls all services, after it has printed what did
// answer: err, or one that names what did not. When nothing answered it has the code of the first
// error.
func (e *Env) partial(missing []Missing, err error) error {
	return e.Partial(len(e.App.Topology.Services)-len(missing), missing, err)
}

// Partial is the error of a command that has printed what so many services answered. It names those
// that are missing on standard error. The result is err, or an error with ExitPartial, or, when
// none answered, one with the code of the first that is missing.
func (e *Env) Partial(answered int, missing []Missing, err error) error {
	var names []string
	for _, m := range missing {
		names = append(names, m.Service)
		cause, next, _ := strings.Cut(m.Error, "\n  ")
		e.Notef("%s does not answer: %s", m.Service, cause)
		if next != "" {
			e.Notef("  %s", next)
		}
	}
	if err != nil || len(missing) == 0 {
		return err
	}
	if answered == 0 {
		err = errors.New("no service answers")
		if len(missing) == 1 {
			err = fmt.Errorf("%s does not answer", missing[0].Service)
		}
		var coded Error
		if errors.As(missing[0].err, &coded) {
			return Error{Code: coded.Code, Err: err}
		}
		return err
	}
	return Error{Code: ExitPartial, Err: fmt.Errorf("the answer is partial: without %s",
		strings.Join(names, ", "))}
}

// IsPartial reports whether err means that a command did a part of its work.
func IsPartial(err error) bool {
	var coded Error
	return errors.As(err, &coded) && coded.Code == ExitPartial
}
