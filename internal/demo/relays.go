package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quadrille-go/quadrille/outbox"
)

// relayFrom returns the part of the demo that switches every relay to a source while orders are in
// progress.
func (d *player) relayFrom(source outbox.SourceName) func(context.Context) error {
	return func(ctx context.Context) error { return d.switchRelays(ctx, source) }
}

func (d *player) switchRelays(ctx context.Context, source outbox.SourceName) error {
	if d.stack.servers.Given {
		d.relays = "the servers are not private: the relays stayed with the window"
		return nil
	}
	if source == outbox.FromStream {
		if err := d.stack.logins.grantReplication(ctx); err != nil {
			return err
		}
	}
	// Two orders are in progress while the relays are switched.
	for range 2 {
		if _, err := d.place(ctx, "confirmed, while the relays switch to the "+string(source),
			newBody(rich, plenty, "GB"), confirmed); err != nil {
			return err
		}
	}
	var tokens []string
	for _, s := range d.App.Topology.Services {
		r, err := d.Client().UseRelay(ctx, s.Name, string(source))
		if err != nil {
			return err
		}
		tokens = append(tokens, fmt.Sprintf("%s (token %d)", s.Name, r.Token))
	}
	line := fmt.Sprintf("at %s the relays switched to the %s: %s", time.Now().Format(time.TimeOnly),
		source, strings.Join(tokens, ", "))
	d.relays = strings.TrimPrefix(d.relays+"\n"+line, "\n")
	return nil
}
