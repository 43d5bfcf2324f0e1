package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

// editing is a new body for a parked event.
type editing struct {
	service, data, reason string
	sets                  []string
}

func editCommand(e *Env) *cobra.Command {
	var s editing
	c := &cobra.Command{
		Use: "edit ID", Short: "Change the body of a parked event, with a reason; the original is kept",
		Args: cobra.ExactArgs(1),
		Long: "Change the body of a parked event: single fields with --set, or all of it with --data. " +
			"It stays parked until it is\n" +
			"redriven. The service refuses a body that it could not read. It keeps on record the body " +
			"that it had, who changed\n" +
			"it and why; parked show prints the original. What was published stays as it was, also for " +
			"other services.",
		Example: "  " + e.App.Name + " parked edit 0190a0e0-0000-7000-8000-000000000001 --set " +
			"lines.0.quantity=2 --reason \"ticket 4711\"",
		RunE: func(c *cobra.Command, args []string) error { return s.run(c.Context(), e, args[0]) },
	}
	c.Flags().StringVar(&s.data, "data", "", "the new body: JSON, @file, or - for standard input")
	c.Flags().StringArrayVar(&s.sets, "set", nil, "change a field of the body: `path=value`, such as "+
		"lines.0.quantity=2")
	c.Flags().StringVar(&s.reason, "reason", "", "why, for the record")
	c.Flags().StringVar(&s.service, "service", "", "the service that has parked it")
	return c
}

func (s editing) run(ctx context.Context, e *Env, id string) error {
	switch {
	case strings.TrimSpace(s.reason) == "":
		return usage(
			errors.New("--reason: must say why, since the event is no longer what was published"))
	case s.data == "" && len(s.sets) == 0:
		return usage(errors.New("give the new body with --data, or fields of it with --set"))
	}
	given, err := e.payload(s.data, false)
	if err != nil {
		return err
	}
	was, service, err := askParked(e, id, s.service, func(s admin.Service) (admin.ParkedEvent, error) {
		return s.ParkedEvent(ctx, id)
	})
	if err != nil {
		return err
	}
	if given == nil {
		given = was.Body
	}
	body, err := set(given, s.sets)
	if err != nil {
		return usage(err)
	}
	for _, s := range s.sets {
		if path, _, _ := strings.Cut(s, "="); !hasPath(given, path) {
			e.Notef("the body had no field %s before", path)
		}
	}
	now, err := e.Client().Service(service).Edit(ctx, id, admin.EditRequest{Operator: operatorName(),
		Reason: s.reason, Was: admin.Digest(was.Body), Body: body})
	if err != nil {
		return fmt.Errorf("edit %s: %w", id, err)
	}
	return e.Print(now, func(t *Text) {
		t.Printf("%s has a new body in %s:\n", id, service)
		t.Lines("  - ", string(bytes.TrimSpace(was.Body)))
		t.Lines("  + ", string(bytes.TrimSpace(now.Body)))
		e.Notef("next: %s", e.App.Command("parked redrive "+id+" --service "+service+" --dry-run"))
	})
}
