package demo

import (
	"context"
	"strings"

	"github.com/quadrille-go/quadrille/outbox"
)

// relayFrom returns the part of the demo that switches every relay to a source while orders are in
// progress.
func (d *player) relayFrom(source outbox.SourceName) func(context.Context) error {
	return func(ctx context.Context) error { return d.switchRelays(ctx, source) }
}

func (d *player) switchRelays(ctx context.Context, source outbox.SourceName) error {
	where := "their outbox tables"
	if source == outbox.FromStream {
		where = "the log of PostgreSQL"
	}
	if d.stack.servers.Given {
		d.relays = "the servers are not private, so the services kept reading their events from " + where
		return nil
	}
	if source == outbox.FromStream {
		if err := d.stack.logins.grantReplication(ctx); err != nil {
			return err
		}
	}
	// Two orders are in progress while the relays are switched.
	for range 2 {
		name := "confirmed, while the services switch to reading their events from " + where
		if _, err := d.place(ctx, name, newBody(rich, plenty, "GB"), confirmed); err != nil {
			return err
		}
	}
	for _, s := range d.App.Topology.Services {
		if _, err := d.Client().UseRelay(ctx, s.Name, string(source)); err != nil {
			return err
		}
	}
	line := "the services switched to reading the events that they publish from " + where +
		", while orders were in progress"
	d.relays = strings.TrimPrefix(d.relays+"\n"+line, "\n")
	return nil
}
