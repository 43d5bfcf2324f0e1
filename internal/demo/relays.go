package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quadrille-go/quadrille/outbox"
)

// streamed lets every relay leave the window for PostgreSQL's own log, with orders under way.
func (d *player) streamed(ctx context.Context) error { return d.relayFrom(ctx, outbox.FromStream) }

// windowed is the way back.
func (d *player) windowed(ctx context.Context) error { return d.relayFrom(ctx, outbox.FromWindow) }

func (d *player) relayFrom(ctx context.Context, source string) error {
	if d.stack.servers.Given {
		d.relayed = "the servers were given: the relays stayed with the window"
		return nil
	}
	if source == outbox.FromStream {
		if err := d.stack.mayStream(ctx); err != nil {
			return err
		}
	}
	// Two orders are under way while the relays change.
	for range 2 {
		if _, err := d.place(ctx, "confirmed, while the relays change to the "+source,
			newBody(rich, plenty, "GB"), confirmed); err != nil {
			return err
		}
	}
	var tokens []string
	for _, s := range d.App.Topology.Services {
		r, err := d.UseRelay(ctx, s.Name, source)
		if err != nil {
			return err
		}
		tokens = append(tokens, fmt.Sprintf("%s (token %d)", s.Name, r.Token))
	}
	line := fmt.Sprintf("at %s the relays went over to the %s: %s", time.Now().Format(time.TimeOnly),
		source, strings.Join(tokens, ", "))
	d.relayed = strings.TrimPrefix(d.relayed+"\n"+line, "\n")
	return nil
}
