package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/quadrille-go/quadrille/admin"
)

// Env is what a command runs in: how it prints, its settings, and the services.
type Env struct {
	App    App
	In     io.Reader
	Out    io.Writer
	ErrOut io.Writer
	Output string // table or json
	// Fixed settings come before all others: those of a stack that the command itself has started.
	Fixed map[string]string

	quiet    bool // no notes
	settings settings
}

// Print writes a value as JSON, or lets table write it for a person.
func (e *Env) Print(value any, table func(t *Text)) error {
	if e.Output != "json" {
		t := NewText(e.Out)
		table(t)
		return t.err
	}
	var document bytes.Buffer
	encoder := json.NewEncoder(&document)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("print as JSON: %w", err)
	}
	_, err := e.Out.Write(visibleJSON(document.Bytes()))
	return err
}

// Notef writes a line for a person apart from the data, such as progress or the next command. It
// writes nothing with --quiet.
func (e *Env) Notef(format string, values ...any) {
	if !e.quiet {
		e.warnf(format, values...)
	}
}

// warnf writes a line about something that is wrong, also with --quiet.
func (e *Env) warnf(format string, values ...any) {
	NewText(e.ErrOut).Printf(format+"\n", values...)
}

// Client returns the client of the services of the topology, at the addresses of the settings.
func (e *Env) Client() *admin.Client {
	token, _ := e.token() // an error is that of each request, see addresses
	return &admin.Client{Services: e.App.services(), Replicas: e.addresses, Token: token}
}

// Call is admin.Client.Call.
func (e *Env) Call(ctx context.Context, service, method, path string, header map[string]string,
	body, out any) error {
	return e.Client().Call(ctx, service, method, path, header, body, out)
}

// services are the names of the services of the topology.
func (a App) services() []string {
	names := make([]string, len(a.Topology.Services))
	for i, s := range a.Topology.Services {
		names[i] = s.Name
	}
	return names
}

// known is an error that names the first of some services that the topology does not have.
func (a App) known(services ...string) error {
	for _, service := range services {
		if _, ok := a.Topology.Service(service); !ok {
			return fmt.Errorf("there is no service %q: the services are %s", service,
				strings.Join(a.services(), ", "))
		}
	}
	return nil
}

// howToStart is a hint with the command that starts the services, if the program has one.
func (a App) howToStart() string {
	if a.Start == "" {
		return "are the services running?"
	}
	return "are the services running? start them with: " + a.Command(a.Start)
}

// exampleServices are one or two services of the topology, for examples in help.
func (a App) exampleServices() string {
	names := a.services()
	return cmp.Or(strings.Join(names[:min(2, len(names))], " "), "SERVICE")
}

// explain returns the text of an error. That of a service that does not answer ends with a hint.
func (a App) explain(err error) string {
	text := err.Error()
	var own Error
	var answered admin.Problem
	if admin.Unreachable(err) && !errors.As(err, &own) && !errors.As(err, &answered) {
		text += "\n  " + a.howToStart() +
			"\n  their addresses are those of QUADRILLE_<SERVICE>_URL, here or in " + envFile
	}
	return text
}
