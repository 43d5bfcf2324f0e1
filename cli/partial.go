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

// MissingError returns the first error of services that did not answer, nil when all did.
func MissingError(missing []Missing) error {
	if len(missing) == 0 {
		return nil
	}
	return missing[0].err
}

// each asks all services at the same time, and returns those that did not answer.
func (e *Env) each(ask func(service string) error) []Missing {
	services := e.App.Topology.Services
	errs := make([]error, len(services))
	var asking sync.WaitGroup
	for i, s := range services {
		asking.Go(func() { errs[i] = ask(s.Name) })
	}
	asking.Wait()
	missing := []Missing{}
	for i, err := range errs {
		if err != nil {
			missing = append(missing, Missing{Service: services[i].Name, Error: err.Error(), err: err})
		}
	}
	return missing
}

// collect asks all services at the same time for a list, and joins the lists in the order of the
// services.
func collect[T any](e *Env, ask func(service string) ([]T, error)) (all []T, missing []Missing) {
	var mu sync.Mutex
	found := map[string][]T{}
	missing = e.each(func(service string) error {
		list, err := ask(service)
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

// partial makes the error of a command after it has printed what did answer: err, or one that names
// what did not. When nothing answered it has the code of the first error.
func (e *Env) partial(missing []Missing, err error) error {
	if err != nil || len(missing) == 0 {
		return err
	}
	var names []string
	for _, m := range missing {
		names = append(names, m.Service)
		e.Notef("%s does not answer: %s", m.Service, m.Error)
	}
	if len(missing) == len(e.App.Topology.Services) {
		var coded Error
		if errors.As(missing[0].err, &coded) {
			return Error{Code: coded.Code, Err: errors.New("no service answers")}
		}
		return errors.New("no service answers")
	}
	return Error{Code: ExitPartial, Err: fmt.Errorf("the answer is partial: without %s",
		strings.Join(names, ", "))}
}
