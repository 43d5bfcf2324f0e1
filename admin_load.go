package quadrille

import (
	"context"
	"fmt"
	"os"

	"github.com/quadrille-go/quadrille/admin"
)

func (o operator) Load(ctx context.Context) (admin.Load, error) {
	if err := o.Open(ctx); err != nil {
		return admin.Load{}, err
	}
	waiting, err := o.Backlog(ctx)
	if err != nil {
		return admin.Load{}, err
	}
	s := o.Stats()
	host, _ := os.Hostname() // without one the process must do
	load := admin.Load{Replica: fmt.Sprintf("%s/%d", host, os.Getpid()), Published: s.Relay.Published,
		Handled: s.Consumer.Handled, Duplicates: s.Consumer.Duplicates, Failed: s.Consumer.Delayed,
		Parked: s.Consumer.Parked, Breakers: s.Breakers}
	load.Lagged, load.LagSeconds = s.Lag.Total()
	if err := o.Healthy(); err != nil {
		load.Problem = err.Error()
	}
	load.Waiting = admin.Backlog{
		Unpublished: waiting.Unpublished, UnpublishedSeconds: waiting.UnpublishedAge.Seconds(),
		Held: sum(waiting.Held), Retries: waiting.Pending["retry"],
		Deadlines: waiting.Pending["deadline"], Calls: waiting.Pending["call"],
		OtherRelease: waiting.Pending["unknown"], Overdue: sum(waiting.Overdue),
		Parked: sum(waiting.Parked), ParkedSeconds: waiting.ParkedAge.Seconds(),
	}
	return load, nil
}

func sum(kinds map[string]int64) (n int64) {
	for _, count := range kinds {
		n += count
	}
	return n
}
