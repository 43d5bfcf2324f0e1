package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// tailPause is the pause between two attempts to read again after the broker was away.
const tailPause = time.Second

// tailing shows what is published, as it comes.
type tailing struct {
	*Env
	eventType, subject string
}

func tailCommand(e *Env) *cobra.Command {
	s := tailing{Env: e}
	c := &cobra.Command{
		Use: "tail", Short: "Show events as they are published, until Ctrl-C",
		Long: "Show the events of all services as they are published, until Ctrl-C. It reads a queue " +
			"of its own, which ends with it,\nso no service notices. What comes faster than it is " +
			"read is left out. With -o json each line is an event.",
		Example: "  " + e.App.Name + " tail --type 'order.*'",
		RunE:    func(c *cobra.Command, _ []string) error { return s.run(c.Context()) },
	}
	c.Flags().StringVar(&s.eventType, "type", "",
		"only events of this type; * stands for any characters")
	c.Flags().StringVar(&s.subject, "subject", "", "only events about this subject, such as an order")
	return c
}

func (s tailing) run(ctx context.Context) error {
	if _, err := path.Match(s.eventType, ""); err != nil {
		return usage(fmt.Errorf("--type %q: want a type, in which * stands for any characters",
			s.eventType))
	}
	url, err := s.Setting("QUADRILLE_AMQP_URL")
	if err != nil {
		return err
	}
	reads := false // it has read at least once
	for {
		err := rabbit.Tail(ctx, url, s.App.Topology, func() {
			reads = true
			s.Notef("reading %s", s.App.Topology.Name)
		}, s.show)
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is how it ends
		case !reads:
			return s.App.away("QUADRILLE_AMQP_URL", err)
		}
		s.warnf("not reading, and trying again: %v", err)
		if !pause(ctx, tailPause) {
			return nil
		}
	}
}

// show prints one event, unless it is not wanted.
func (s tailing) show(m rabbit.Tailed) error {
	wanted, _ := path.Match(s.eventType, m.Type) // the pattern is well-formed
	if s.eventType != "" && !wanted || s.subject != "" && s.subject != m.Subject {
		return nil
	}
	if s.Output == "json" {
		return s.printLine(wireOf(m.Record, m.Exchange))
	}
	fault := ""
	if m.Fault != nil {
		fault = "  " + m.Fault.Error()
	}
	t := NewText(s.Out)
	t.Printf("%s  %-20s %-24s %s  %s%s\n", time.Now(), m.Exchange, m.Type, m.Subject, m.ID, fault)
	return t.err
}

// printLine prints a value as one line of JSON.
func (e *Env) printLine(value any) error {
	document, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("print as JSON: %w", err)
	}
	_, err = e.Out.Write(append(visibleJSON(document), '\n'))
	return err
}

// wireOf is an event with the way it takes.
func wireOf(r events.Record, exchange string) Wire {
	data := json.RawMessage(r.Data)
	if !json.Valid(data) {
		data, _ = json.Marshal(string(r.Data)) // a string always encodes
	}
	return Wire{
		SpecVersion: "1.0", ID: r.ID, Source: r.Source, Type: r.Type, Subject: r.Subject, Time: r.Time,
		ContentType: "application/json", DataSchema: r.DataSchema, CorrelationID: r.CorrelationID,
		CausationID: r.CausationID, TraceParent: r.TraceParent, Exchange: exchange, RoutingKey: r.Type,
		Data: data,
	}
}
