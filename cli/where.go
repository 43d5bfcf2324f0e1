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
			w := e.Client().Where(c.Context(), args[0], e.App.Topology.Subscribers,
				e.App.Ends...)
			if w.Last == nil && len(w.Waiting) == 0 && len(w.Missing) == 0 {
				return e.App.unknownSubject(fmt.Errorf("no service knows anything about %q", args[0]))
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
		t.Printf("the last event is %s of %s, %s ago\n", w.Last.Type, publisher, now.Sub(w.Last.Time))
	}
	waits, later := []admin.Waiting{}, []admin.Waiting{}
	for _, x := range w.Waiting {
		if isLater(x) {
			later = append(later, x)
		} else {
			waits = append(waits, x)
		}
	}
	switch {
	case len(waits) > 0:
		printWaiting(t, waits, now)
	case len(w.Missing) == 0:
		t.Printf("nothing waits\n")
	}
	if w.Ended != nil {
		t.Printf("it is finished: %s has ended it\n", w.Ended.Type)
	}
	for _, x := range later {
		effect := "which does nothing if it is finished by then"
		if w.Ended != nil {
			effect = "which does nothing, because it is finished"
		}
		t.Printf("the deadline %s of %s passes %s, %s\n", x.Type, x.Service, dueIn(x.Due, now), effect)
	}
	for _, x := range waits {
		if next := e.App.nextFor(x); next != "" {
			e.Notef("next: %s", next)
			return
		}
	}
}

// isLater reports whether something is a deadline in the future. It is no obstacle: it takes effect
// only if nothing else happens until then.
func isLater(x admin.Waiting) bool { return x.Place == admin.OnDeadline && x.Attempts == 0 }

func printWaiting(t *Text, waits []admin.Waiting, now time.Time) {
	t.Table("WAITS IN\tOF\tFOR\tTYPE\tATTEMPTS\tDUE\tREASON", func(row func(...any)) {
		for _, x := range waits {
			line, _, _ := strings.Cut(x.Reason, "\n")
			row(x.Place, x.Service, now.Sub(x.Since), x.Type, x.Attempts, dueIn(x.Due, now), line)
		}
	})
}

// dueIn says when something is tried again, or delivered.
func dueIn(due *time.Time, now time.Time) string {
	switch {
	case due == nil:
		return "-"
	case due.Before(now):
		return "now"
	}
	return "in " + age(due.Sub(now))
}

// unknownSubject is the error about a subject that no service knows.
func (a App) unknownSubject(err error) error {
	next := "what a service could not read is parked: " + a.Command("parked list")
	if a.List != "" {
		next = "list the ids there are: " + a.Command(a.List) + "\n" + next
	}
	return Error{Code: ExitNotFound, Err: err, Next: next}
}

// nextFor is the command with which a person finds out more or repairs it, or "" if it goes on by
// itself.
func (a App) nextFor(x admin.Waiting) string {
	switch {
	case x.Place == admin.IsParked:
		return a.Command("parked show " + x.ID)
	case x.Place == admin.Held && x.Due == nil:
		return a.Command("relay release "+x.ID) + "   # after the cause is repaired"
	case x.Place == admin.InOutbox:
		return a.Command("relay show")
	case x.Place == admin.InQueue:
		return fmt.Sprintf("is %s running? see its log, and the queue at the broker", x.Service)
	case x.Place == admin.InCall:
		return a.Command("breakers")
	}
	return ""
}
