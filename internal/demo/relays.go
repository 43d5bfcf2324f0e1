package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quadrille-go/quadrille/outbox"
)

// streamed switches every relay from the window to the stream while orders are in progress.
func (d *player) streamed(ctx context.Context) error { return d.relayFrom(ctx, outbox.FromStream) }

// windowed switches every relay back to the window.
func (d *player) windowed(ctx context.Context) error { return d.relayFrom(ctx, outbox.FromWindow) }

func (d *player) relayFrom(ctx context.Context, source outbox.SourceName) error {
	if d.stack.servers.Given {
		d.relays = "the servers are not private: the relays stayed with the window"
		return nil
	}
	if source == outbox.FromStream {
		if err := d.stack.grantReplication(ctx); err != nil {
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
