package admin

import (
	"context"
	"fmt"
	"time"
)

// waitPoll is the pause between two looks at what a service is doing.
const waitPoll = 200 * time.Millisecond

// UseRelay sets which source a service's relay uses, "window" or "stream", and waits until it does.
func (c *Client) UseRelay(ctx context.Context, service, source string) (Relay, error) {
	s := c.Service(service)
	r, err := s.UseSource(ctx, source)
	for err == nil && r.Source != source {
		if err := pause(ctx, waitPoll); err != nil {
			return r, fmt.Errorf("the relay of %s still uses the %s: its log says why; for the stream, "+
				"wal_level must be logical and its role must have REPLICATION: %w", service, r.Source, err)
		}
		r, err = s.Relay(ctx)
	}
	return r, err
}

// Replay requests a replay of a service and waits until it has ended. The replay goes on when ctx
// ends first.
func (c *Client) Replay(ctx context.Context, service string, r ReplayRequest) (Replay, error) {
	s := c.Service(service)
	id, err := s.Replay(ctx, r)
	if err != nil {
		return Replay{}, err
	}
	for {
		page, err := s.Replays(ctx, id+1, 1) // newest first, so that the page begins with this request
		if err != nil {
			return Replay{}, fmt.Errorf("request %d goes on in %s without us: %w", id, service, err)
		}
		for _, r := range page.Replays {
			if r.ID == id && (r.EndedAt != nil || r.DoneAt != nil) {
				return r, nil
			}
		}
		if err := pause(ctx, waitPoll); err != nil {
			return Replay{}, fmt.Errorf("request %d goes on in %s without us: %w", id, service, err)
		}
	}
}

// pause waits, or returns the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
