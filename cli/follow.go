package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quadrille-go/quadrille/admin"
)

// followInterval is the pause between two looks at a subject.
const followInterval = time.Second

// happening is a line of a followed trace: an event or a call, or that a service has handled one.
type happening struct {
	Step    admin.Step       `json:"event"`
	Handled *admin.HandledBy `json:"handled,omitempty"` // nil: it was published, or requested
}

// follow shows what happens to a subject, also when nothing is known about it yet, until ctx is
// done. With -o json each line is something that happened. A service that does not answer is named
// once; what it did is shown when it answers again.
func (e *Env) follow(ctx context.Context, subject string) error {
	shown, missing := map[string]bool{}, map[string]bool{}
	var began time.Time
	for {
		trace := e.Client().Trace(ctx, subject)
		if ctx.Err() != nil {
			return nil // Ctrl-C is how it ends
		}
		away := map[string]bool{}
		for _, m := range trace.Missing {
			if away[m.Service] = true; !missing[m.Service] {
				e.warnf("%s does not answer: %s", m.Service, e.App.explain(m.Err))
			}
		}
		missing = away
		if began.IsZero() && len(trace.Steps) > 0 {
			began = trace.Steps[0].Time
		}
		for _, h := range happened(trace) {
			key := h.key()
			if shown[key] {
				continue
			}
			shown[key] = true
			if err := e.printHappening(h, began); err != nil {
				return err
			}
		}
		if !pause(ctx, followInterval) {
			return nil
		}
	}
}

// happened lists what a trace contains, each event before its handlers.
func happened(trace admin.Trace) (all []happening) {
	for _, s := range trace.Steps {
		handled := s.Handled
		s.Handled = nil
		all = append(all, happening{Step: s})
		for _, h := range handled {
			all = append(all, happening{s, &h})
		}
	}
	return all
}

// key tells what is new: a call is shown again when its state changes.
func (h happening) key() string {
	switch {
	case h.Handled != nil:
		return fmt.Sprint(h.Step.ID, " ", h.Handled.Service, " ", h.Handled.Unhandled)
	case h.Step.Call != nil:
		return fmt.Sprint(h.Step.ID, " ", callNote(h.Step.Call, h.Step.Time))
	}
	return h.Step.ID
}

func (e *Env) printHappening(h happening, began time.Time) error {
	if e.Output == "json" {
		return e.printLine(h)
	}
	t := NewText(e.Out)
	if h.Handled == nil {
		t.Printf("%s\n", strings.TrimRight(fmt.Sprintf("%-24s %s", h.Step.Type, note(h.Step, began)),
			" "))
		return t.err
	}
	did := "handled"
	if h.Handled.Unhandled != "" {
		did = "has, and not handled (" + h.Handled.Unhandled + "),"
	}
	t.Printf("  %-22s %-10s %s\n", h.Step.Type, did+" by "+h.Handled.Service,
		after(h.Handled.At.Sub(began)))
	return t.err
}
