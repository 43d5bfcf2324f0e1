package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

func traceCommand(e *Env) *cobra.Command {
	var follow bool
	c := &cobra.Command{
		Use:     "trace SUBJECT",
		Short:   "Show the events of a subject, such as an order, as a tree by causation",
		Example: "  " + e.App.Name + " trace 0190a0e0-0000-7000-8000-000000000001",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if follow {
				return e.follow(c.Context(), args[0])
			}
			trace := e.Client().Trace(c.Context(), args[0])
			if len(trace.Steps) == 0 && len(trace.Missing) == 0 {
				return e.App.unknownSubject(fmt.Errorf("no service has published anything about %q", args[0]))
			}
			return e.partial(trace.Missing, e.Print(trace, func(t *Text) {
				t.Trace("", trace)
				for _, service := range trace.Cut {
					t.Printf("%s has published more about it: these are its first events\n", service)
				}
			}))
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "show what happens as it happens, until Ctrl-C")
	return c
}

// Trace writes a trace as a tree after an indent: under each event those that it caused. Each event
// is written once, also when foreign events cause each other in a circle.
func (t *Text) Trace(indent string, s admin.Trace) {
	if len(s.Steps) == 0 {
		return
	}
	p := plant{began: s.Steps[0].Time, children: map[string][]admin.Step{},
		written: map[string]bool{}}
	known := map[string]bool{}
	for _, step := range s.Steps {
		known[step.ID] = true
	}
	var roots []admin.Step
	for _, step := range s.Steps {
		if step.CausationID == "" || !known[step.CausationID] {
			roots = append(roots, step)
		} else {
			p.children[step.CausationID] = append(p.children[step.CausationID], step)
		}
	}
	t.Printf("%s%s\n", indent, s.Subject)
	p.branches(roots, indent)
	for _, step := range s.Steps { // what is left is in a circle
		if !p.written[step.ID] {
			p.branches([]admin.Step{step}, indent)
		}
	}
	width := minBranch
	for _, line := range p.lines {
		width = max(width, utf8.RuneCountInString(line[0]))
	}
	for _, line := range p.lines {
		t.Printf("%s\n", strings.TrimRight(fmt.Sprintf("%-*s %s", width, line[0], line[1]), " "))
	}
}

// minBranch is the width of the branches, unless one is wider.
const minBranch = 34

// plant is a tree that grows until it is written.
type plant struct {
	lines    [][2]string // a branch and its note
	began    time.Time
	children map[string][]admin.Step
	written  map[string]bool
}

func (p *plant) branches(steps []admin.Step, indent string) {
	for i, step := range steps {
		if p.written[step.ID] {
			continue
		}
		p.written[step.ID] = true
		twig, next := "├─ ", "│  "
		if i == len(steps)-1 {
			twig, next = "└─ ", "   "
		}
		p.lines = append(p.lines, [2]string{indent + twig + step.Type, note(step, p.began)})
		p.branches(p.children[step.ID], indent+next)
	}
}

// note names the publisher and the time of an event, its reason if it has one, and its handlers.
func note(s admin.Step, began time.Time) string {
	published := s.Service
	if published == "" {
		published = "test event"
	}
	text := fmt.Sprintf("%-10s %s", published, after(s.Time.Sub(began)))
	var why struct{ Reason string }
	if json.Unmarshal(s.Data, &why) == nil && why.Reason != "" {
		text += "  (" + why.Reason + ")"
	}
	if s.Call != nil {
		return text + "  " + callNote(s.Call, began)
	}
	var by []string
	for _, h := range s.Handled {
		when := after(h.At.Sub(began))
		if h.Unhandled != "" {
			when = "(" + h.Unhandled + ")"
		}
		by = append(by, h.Service+" "+when)
	}
	if len(by) > 0 {
		text += "  → " + strings.Join(by, ", ")
	}
	return text
}

// callNote returns whether a call was answered, or what it waits for.
func callNote(c *admin.Call, began time.Time) string {
	failed := ""
	if c.Attempts > 0 {
		failed = fmt.Sprintf(" after %d failed attempts", c.Attempts)
	}
	switch {
	case c.AnsweredAt != nil && c.Answer == "":
		return "call, made " + after(c.AnsweredAt.Sub(began)) + failed
	case c.AnsweredAt != nil:
		return "call, answered " + c.Answer + " " + after(c.AnsweredAt.Sub(began)) + failed
	case c.Parked:
		return "call, parked" + failed + ": " + c.Reason
	case c.Reason != "":
		return "call, waits" + failed + ": " + c.Reason
	}
	return "call, under way"
}

// after is the time since the first event: exact while it is about the speed of the services.
func after(d time.Duration) string {
	if d >= time.Minute {
		return "+" + age(d)
	}
	return fmt.Sprintf("+%dms", d.Round(time.Millisecond).Milliseconds())
}
