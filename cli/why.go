package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

// explanation is the answer of why.
type explanation struct {
	Subject string          `json:"subject"`
	Causes  []admin.Step    `json:"causes"`  // the first one first, and last what was asked about
	Waiting []admin.Waiting `json:"waiting"` // about the subject
	Missing []admin.Missing `json:"missing"`
}

func whyCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "why SUBJECT|EVENT", Short: "Show what caused an event, back to the first cause",
		Long: "Show an event or an outside call by its id, or the last event about a subject such as " +
			"an order, with its cause, the cause\nof that, and so on back to the first one. What waits " +
			"about the subject is named with its last error.",
		Example: "  " + e.App.Name + " why 0190a0e0-0000-7000-8000-000000000001",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			x := e.explain(c.Context(), args[0])
			if len(x.Causes) == 0 && len(x.Waiting) == 0 && len(x.Missing) == 0 {
				return e.App.unknownSubject(
					fmt.Errorf("no service has published anything about %q, or under this id", args[0]))
			}
			return e.partial(x.Missing, e.Print(x, func(t *Text) { e.printWhy(t, x, time.Now()) }))
		},
	}
}

// explain takes its argument for a subject, and if nothing is known about that for the id of
// an event.
func (e *Env) explain(ctx context.Context, about string) explanation {
	client, subscribers := e.Client(), e.App.Topology.Subscribers
	x := explanation{Subject: about, Causes: []admin.Step{}}
	where := client.Where(ctx, about, subscribers)
	x.Waiting, x.Missing = where.Waiting, where.Missing
	id := about
	if where.Last != nil {
		id = where.Last.ID
	}
	if where.Last == nil && (len(x.Waiting) > 0 || !isID(about)) {
		return x
	}
	chain := client.Why(ctx, id)
	x.Causes = append(x.Causes, chain.Steps...)
	x.Missing = admin.Union(x.Missing, chain.Missing)
	if where.Last == nil && chain.Subject != "" {
		where = client.Where(ctx, chain.Subject, subscribers)
		x.Subject, x.Waiting = chain.Subject, where.Waiting
	}
	return x
}

func (e *Env) printWhy(t *Text, x explanation, now time.Time) {
	for i := len(x.Causes) - 1; i >= 0; i-- {
		s := x.Causes[i]
		because := "because"
		if i == len(x.Causes)-1 {
			because = ""
		}
		t.Printf("%-8s %-24s %s\n", because, s.Type, note(s, x.Causes[0].Time))
	}
	if len(x.Causes) > 0 {
		first := x.Causes[0]
		switch {
		case first.Service == "":
			t.Printf("that was published by no service of %s, such as a test event\n", e.App.Topology.Name)
		case first.CausationID == "":
			t.Printf("that was a command to %s, or a deadline of it, %s ago\n", first.Service,
				now.Sub(first.Time))
		default:
			t.Printf("no service that answers knows the cause of that, %s\n", first.CausationID)
		}
	}
	for _, w := range x.Waiting {
		if w.Reason != "" && !isLater(w) {
			t.Printf("%s waits in %s of %s: %s\n", w.Type, w.Place, w.Service, w.Reason)
			if next := e.App.nextFor(w); next != "" {
				e.Notef("next: %s", next)
			}
		}
	}
}
