package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/quadrille-go/quadrille/admin"
)

// The exit codes.
const (
	ExitFailure     = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitProblems    = 5 // a check found what it looks for
	ExitUnreachable = 6
	ExitPartial     = 7 // some services answered, and others did not
)

// Error is an error with an exit code and the next thing to do.
type Error struct {
	Code int
	Err  error
	Next string // a command or a hint, may be empty
}

func (e Error) Error() string {
	if e.Next == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + "\n  " + e.Next
}

func (e Error) Unwrap() error { return e.Err }

// usage is an error of the command line. It gets a hint with the usage of its command.
func usage(err error) error { return Error{Code: ExitUsage, Err: err} }

// codeOf returns the exit code of an error, also of one of a service.
func codeOf(err error) int {
	var own Error
	var answered admin.Problem
	switch {
	case errors.As(err, &own) && own.Code != 0:
		return own.Code
	case admin.Unreachable(err):
		return ExitUnreachable
	case !errors.As(err, &answered):
		return ExitFailure
	case answered.Status == http.StatusNotFound:
		return ExitNotFound
	case answered.Status == http.StatusBadRequest:
		return ExitUsage
	}
	return ExitFailure
}

// IsNotFound reports whether err means that what was asked for does not exist.
func IsNotFound(err error) bool { return err != nil && codeOf(err) == ExitNotFound }

// IsPartial reports whether err means that a command did a part of its work.
func IsPartial(err error) bool { return err != nil && codeOf(err) == ExitPartial }

// Partial is the error of a command that has printed what so many services answered. It names those
// that are missing on standard error. The result is err, or an error with ExitPartial, or, when
// none answered, one with the code of the first that is missing.
func (e *Env) Partial(answered int, missing []admin.Missing, err error) error {
	var names []string
	told := map[string]bool{} // hints, each of which is printed once
	for _, m := range missing {
		names = append(names, m.Service)
		cause, next, _ := strings.Cut(e.App.explain(m.Err), "\n  ")
		e.warnf("%s does not answer: %s", m.Service, cause)
		if next != "" && !told[next] {
			told[next] = true
			NewText(e.ErrOut).Lines("  ", strings.ReplaceAll(next, "\n  ", "\n"))
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
		return Error{Code: codeOf(missing[0].Err), Err: err, Next: "the reason is above"}
	}
	return Error{Code: ExitPartial, Err: fmt.Errorf("the answer is partial: without %s",
		strings.Join(names, ", "))}
}

// partial is Partial for a command that calls all services.
func (e *Env) partial(missing []admin.Missing, err error) error {
	answered := len(e.App.Topology.Services)
	for _, m := range missing {
		if e.App.known(m.Service) == nil { // otherwise it is one replica of a service
			answered--
		}
	}
	return e.Partial(answered, missing, err)
}

// change calls the named services at the same time to change something. It returns what those
// answered that did it, those that cannot be reached, and the errors of the others.
func change[T any](services []string, call func(service string) (T, error)) (done []T,
	missing []admin.Missing, failed error) {
	done, missing = []T{}, []admin.Missing{}
	for _, a := range admin.All(services, call) {
		switch {
		case admin.Unreachable(a.Err):
			missing = append(missing, admin.NewMissing(a.Service, a.Err))
		case a.Err != nil:
			failed = errors.Join(failed, a.Err)
		default:
			done = append(done, a.Value)
		}
	}
	return done, missing, failed
}
