package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// maxPublished bounds --count.
const maxPublished = 1_000_000

type publishing struct {
	*Env
	data       string
	sets       []string
	count      int
	id         string
	dryRun     bool
	noValidate bool
}

// Wire is an event as CloudEvents JSON, with the way it takes.
type Wire struct {
	SpecVersion   string          `json:"specversion"`
	ID            string          `json:"id"`
	Source        string          `json:"source"`
	Type          string          `json:"type"`
	Subject       string          `json:"subject"`
	Time          time.Time       `json:"time"`
	ContentType   string          `json:"datacontenttype"`
	DataSchema    string          `json:"dataschema"`
	CorrelationID string          `json:"correlationid"`
	CausationID   string          `json:"causationid,omitempty"`
	TraceParent   string          `json:"traceparent"`
	Exchange      string          `json:"exchange"`
	RoutingKey    string          `json:"routingkey"`
	Data          json.RawMessage `json:"data"`
}

func publishCommand(e *Env) *cobra.Command {
	p := &publishing{Env: e}
	example := "TYPE"
	for _, s := range e.App.Topology.Services {
		for _, c := range s.Commands {
			if example == "TYPE" && len(c.Publishes) > 0 {
				example = c.Publishes[0]
			}
		}
	}
	c := &cobra.Command{
		Use: "publish TYPE", Short: "Publish a test event, confirmed by the broker",
		Long: "Publish an event on the exchange of the service that publishes its type. " +
			"Without data it is a valid sample.\n\nTypes: " +
			strings.Join(e.App.Topology.Types(), ", "),
		Example: "  " + e.App.Name +
			" publish " + example + "\n" +
			"  " + e.App.Name + " publish " + example + " --data @event.json --count 5 --id " +
			"0190a0e0-0000-7000-8000-000000000001\n" +
			"  " + e.App.Name + " publish " + example + " --dry-run -o json",
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return e.App.Topology.Types(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error { return p.run(c.Context(), args[0]) },
	}
	c.Flags().StringVar(&p.data, "data", "", "the payload: JSON, @file, or - for standard input")
	c.Flags().StringArrayVar(&p.sets, "set", nil, "change a field of the payload: `path=value`, such "+
		"as lines.0.quantity=2")
	c.Flags().IntVar(&p.count, "count", 1,
		"how many to publish; with --id they are copies of one event")
	c.Flags().StringVar(&p.id, "id", "", "the id of the event, a UUID (default: a new one each)")
	c.Flags().BoolVar(&p.dryRun, "dry-run", false, "print what would be published")
	c.Flags().BoolVar(&p.noValidate, "no-validate", false,
		"publish the payload as it is, valid or not")
	return c
}

func (p *publishing) run(ctx context.Context, eventType string) error {
	owner, ok := p.App.Topology.Publisher(eventType)
	if !ok {
		return usage(fmt.Errorf("no service publishes %q; the types are %s", eventType,
			strings.Join(p.App.Topology.Types(), ", ")))
	}
	if p.count < 1 || p.count > maxPublished {
		return usage(fmt.Errorf("--count %d is not between 1 and %d", p.count, maxPublished))
	}
	if p.id != "" {
		if _, err := events.ParseID(p.id); err != nil && !p.noValidate {
			return usage(fmt.Errorf("--id: %w", err))
		}
	}
	given, err := p.payload(p.data, p.noValidate)
	if err != nil {
		return err
	}
	records := make([]events.Record, p.count)
	for i := range records {
		if i > 0 && p.id != "" {
			records[i] = records[0] // copies of one event
			continue
		}
		if records[i], err = p.record(owner, eventType, given); err != nil {
			return err
		}
	}
	if !p.dryRun {
		if err := p.send(ctx, owner, records); err != nil {
			return err
		}
	}
	return p.report(owner, records)
}

// payload returns what --data gives, nil when it is not used.
func (e *Env) payload(given string, anySize bool) (data []byte, err error) {
	switch {
	case given == "":
		return nil, nil
	case given == "-":
		data, err = io.ReadAll(io.LimitReader(e.In, 2*events.MaxSize))
	case given[0] == '@':
		data, err = os.ReadFile(given[1:])
	default:
		data = []byte(given)
	}
	if err != nil {
		return nil, usage(fmt.Errorf("--data: %w", err))
	}
	if len(data) > events.MaxSize && !anySize {
		return nil, usage(fmt.Errorf("--data: %w: at most %d bytes", events.ErrTooLarge, events.MaxSize))
	}
	return bytes.TrimSpace(data), nil
}

// record makes one event: the given payload or a sample, changed by --set, and validated.
func (p *publishing) record(owner, eventType string, data []byte) (events.Record, error) {
	if data == nil {
		sample, ok := p.sample(eventType)
		if !ok {
			return events.Record{}, usage(fmt.Errorf("there is no sample of %s: give --data", eventType))
		}
		var err error
		if data, err = json.Marshal(sample); err != nil {
			return events.Record{}, fmt.Errorf("encode sample: %w", err)
		}
	}
	data, err := set(data, p.sets)
	if err != nil {
		return events.Record{}, usage(err)
	}
	now := time.Now().UTC()
	payload, err := p.App.Catalogue.Decode(eventType, data)
	if err == nil {
		e := events.Cause(events.Command(payload, now), topology.SourceOf(owner), now, payload)
		e.SchemaPrefix = p.App.Topology.SchemaPrefix()
		if p.id != "" {
			e.ID = p.id
		}
		r, err := e.Record()
		r.Data = data // what was given, with fields that are not known here
		return r, err
	}
	if !p.noValidate {
		return events.Record{}, Error{Code: ExitUsage, Err: err,
			Next: fmt.Sprintf("see a valid one: %s; to see how consumers park this one, add --no-validate",
				p.App.Command("publish "+eventType+" --dry-run"))}
	}
	id := p.id
	if id == "" {
		id = events.NewID()
	}
	return events.Record{
		ID: id, Source: topology.SourceOf(owner), Type: eventType, CorrelationID: id, Time: now,
		Data: data,
	}, nil
}

func (p *publishing) sample(eventType string) (events.Payload, bool) {
	if p.App.Sample != nil {
		return p.App.Sample(eventType)
	}
	return p.App.Catalogue.Sample(eventType)
}

// send publishes with confirms.
func (p *publishing) send(ctx context.Context, owner string, records []events.Record) error {
	url, err := p.Setting("QUADRILLE_AMQP_URL")
	if err != nil {
		return err
	}
	messages := make([]rabbit.Message, len(records))
	for i, r := range records {
		messages[i] = rabbit.Message{
			Exchange: topology.ExchangeOf(owner), Key: r.Type, Publishing: rabbit.Publishing(r),
			Mandatory: len(p.App.Topology.Subscribers(r.Type)) > 0,
		}
	}
	err = rabbit.Send(ctx, url, p.App.Name+"/publish", messages...)
	switch {
	case errors.Is(err, rabbit.ErrNotConfirmed):
		return Error{Code: ExitUnreachable, Err: err,
			Next: "is the topology applied? " + p.App.Command("topology apply")}
	case err != nil:
		return p.App.away("QUADRILLE_AMQP_URL", err)
	}
	return nil
}

func (p *publishing) report(owner string, records []events.Record) error {
	wires := make([]Wire, len(records))
	for i, r := range records {
		wires[i] = wireOf(r, topology.ExchangeOf(owner))
	}
	var value any = wires
	if len(wires) == 1 {
		value = wires[0]
	}
	return p.Print(value, func(t *Text) {
		did := "published"
		if p.dryRun {
			did = "would publish"
		}
		for _, e := range wires {
			t.Printf("%s %s %s on %s about %s\n", did, e.Type, e.ID, e.Exchange,
				cmp.Or(e.Subject, "no subject"))
			if p.dryRun {
				t.Printf("  %s\n", e.Data)
			}
		}
	})
}
