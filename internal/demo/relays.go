package demo

import (
	"context"
	"fmt"
	"strings"

	"github.com/quadrille-go/quadrille/outbox"
)

// relayFrom returns the part of the demo that switches every relay to a source while orders are in
// progress.
func (d *player) relayFrom(source outbox.SourceName) func(context.Context) error {
	return func(ctx context.Context) error { return d.switchRelays(ctx, source) }
}

func (d *player) switchRelays(ctx context.Context, source outbox.SourceName) error {
	where := "its outbox table"
	if source == outbox.FromStream {
		where = "the log of PostgreSQL"
	}
	if d.stack.servers.Given {
		d.relays = "the servers are not private, so no service changed how it finds committed events"
		return nil
	}
	if source == outbox.FromStream {
		if err := d.stack.logins.grantReplication(ctx); err != nil {
			return err
		}
	}
	// Two orders are in progress while the relays are switched.
	for range 2 {
		name := "confirmed, while each service changes to finding its events in " + where
		if _, err := d.place(ctx, name, newBody(rich, plenty, "GB"), confirmed); err != nil {
			return err
		}
	}
	var services []string
	for _, s := range d.App.Topology.Services {
		if _, err := d.Client().UseRelay(ctx, s.Name, string(source)); err != nil {
			return err
		}
		services = append(services, s.Name)
	}
	line := fmt.Sprintf("while orders were in progress, %s changed to finding committed events in %s",
		strings.Join(services, ", "), where)
	d.relays = strings.TrimPrefix(d.relays+"\n"+line, "\n")
	return nil
}
