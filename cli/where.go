package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

func whereCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "where SUBJECT", Short: "Show where a subject, such as an order, is and what it waits for",
		Long: "Show the last event about a subject, and all that waits about it: in outboxes, queues, " +
			"retries, deadlines,\noutside calls, and parked for a person. If a person can do something, " +
			"it names the command.",
		Example: "  " + e.App.Name + " where 0190a0e0-0000-7000-8000-000000000001",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			w := e.Client().Where(c.Context(), args[0], e.App.Topology.Subscribers)
			if w.Last == nil && len(w.Waiting) == 0 && len(w.Missing) == 0 {
				return Error{Code: ExitNotFound, Err: fmt.Errorf("no service knows anything about %q", args[0])}
			}
			return e.partial(w.Missing, e.Print(w, func(t *Text) { e.printWhere(t, w, time.Now()) }))
		},
	}
}

func (e *Env) printWhere(t *Text, w admin.Whereabouts, now time.Time) {
	if w.Last != nil {
		publisher := w.Last.Service
		if publisher == "" {
			publisher = "a test event"
		}
		t.Printf("the last event is %s of %s, %s ago\n", w.Last.Type, publisher,
			age(now.Sub(w.Last.Time)))
	}
	if len(w.Waiting) == 0 {
		if len(w.Missing) == 0 {
			t.Printf("nothing waits\n")
		}
		return
	}
	t.Table("WAITS IN\tOF\tFOR\tTYPE\tATTEMPTS\tDUE\tREASON", func(row func(...any)) {
		for _, x := range w.Waiting {
			due := "-"
			if x.Due != nil {
				due = "in " + age(x.Due.Sub(now))
				if x.Due.Before(now) {
					due = "now"
				}
			}
			line, _, _ := strings.Cut(x.Reason, "\n")
			row(x.Place, x.Service, age(now.Sub(x.Since)), x.Type, x.Attempts, due, line)
		}
	})
	for _, x := range w.Waiting {
		if next := e.App.nextFor(x); next != "" {
			e.Notef("next: %s", next)
			return
		}
	}
}

// nextFor is the command with which a person finds out more or repairs it, or "" if it goes on by
// itself.
func (a App) nextFor(x admin.Waiting) string {
	switch {
	case x.Place == admin.IsParked:
		return a.Name + " parked show " + x.ID
	case x.Place == admin.Held && x.Due == nil:
		return fmt.Sprintf("%s relay release %s   # after the cause is repaired", a.Name, x.ID)
	case x.Place == admin.InOutbox:
		return a.Name + " relay show"
	case x.Place == admin.InQueue:
		return fmt.Sprintf("is %s running? see its log, and the queue at the broker", x.Service)
	case x.Place == admin.InCall:
		return a.Name + " breakers"
	}
	return ""
}

// age is a duration for a person, without the digits that do not matter.
func age(d time.Duration) string {
	switch d = d.Abs(); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
