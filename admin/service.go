package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Service is a service as an operator sees it. A service implements it for Handler, and Client
// returns one for each service. What it refuses is a Problem. It is safe for concurrent use.
type Service interface {
	// History returns the events and calls of a subject, at most 1000 of each, the oldest first.
	History(ctx context.Context, subject string) ([]Event, error)
	// Event returns an event that the service has published, or a call that it has requested. It may
	// read the whole history. A Problem of status 404: there is none with this id.
	Event(ctx context.Context, id string) (Event, error)
	// Waiting returns what waits about a subject in the service's database: unpublished and held
	// events, retries, deadlines, calls without an answer, and what is parked. At most 1000 of the
	// outbox and as many others.
	Waiting(ctx context.Context, subject string) ([]Waiting, error)
	// Handled returns which of the events with these ids the service has handled.
	Handled(ctx context.Context, ids []string) ([]Handled, error)
	// Published returns at most limit events of the history with a seq greater than after, in the
	// order of seq. A limit of 0 is 1000, which is also the most.
	Published(ctx context.Context, after int64, limit int) ([]Published, error)
	// Audit checks the service's own invariants in one snapshot of its database, which it only reads.
	Audit(ctx context.Context) ([]Finding, error)
	// Parked returns a page of at most limit rows, after the row with which an earlier page ended; see
	// ParkedPage.Next. A limit of 0 is 1000, which is also the most.
	Parked(ctx context.Context, after string, limit int) (ParkedPage, error)
	// ParkedEvent returns one parked event; a Problem of status 404: there is none with this id.
	ParkedEvent(ctx context.Context, id string) (ParkedEvent, error)
	// DryRun handles a parked event and rolls everything back.
	DryRun(ctx context.Context, id string) (DryRun, error)
	// Redrive lets parked events be handled again now, with all their attempts, and Discard removes
	// parked events for good. Both are on record, with who did it and why. What somebody else has
	// repaired before is absent from the answer, so that both may be repeated.
	Redrive(ctx context.Context, r RepairRequest) (Repaired, error)
	Discard(ctx context.Context, r RepairRequest) (Repaired, error)
	// Edit replaces the body of a parked event, which stays parked. The body that it had stays on
	// record, with who replaced it and why. A Problem of status 409: somebody else has changed it, or
	// it is evidence; of status 422: the service would refuse the new body.
	Edit(ctx context.Context, id string, r EditRequest) (ParkedEvent, error)
	// Repairs returns a page of at most limit repairs with an id less than after, unless that is 0.
	// A limit of 0 is 100, which is also the most.
	Repairs(ctx context.Context, after int64, limit int) (RepairPage, error)
	// Replay requests that history is published again, and returns the id of the request.
	Replay(ctx context.Context, r ReplayRequest) (id int64, err error)
	// Replays returns a page of at most limit requests with an id less than after, unless that is 0.
	// A limit of 0 is 100, which is also the most.
	Replays(ctx context.Context, after int64, limit int) (ReplayPage, error)
	// Held returns at most limit events that the broker did not accept, in the order of seq, after
	// one. Those that only wait for an earlier one of their subject are counted there. A limit of 0
	// is 100, which is also the most.
	Held(ctx context.Context, after int64, limit int) ([]HeldEvent, error)
	// Relay returns the state of the relay.
	Relay(ctx context.Context) (Relay, error)
	// UseSource lets the relay use "window" or "stream", soon. It returns the state of the relay.
	UseSource(ctx context.Context, source string) (Relay, error)
	// Load returns what one replica has done, and what waits in its database.
	Load(ctx context.Context) (Load, error)
	// Breakers returns the circuit breakers of one replica.
	Breakers(ctx context.Context) ([]Breaker, error)
	// Projections returns the progress of the projections.
	Projections(ctx context.Context) ([]Projection, error)
	// Rebuild begins to fill a projection again. It returns the progress of all of them.
	Rebuild(ctx context.Context, projection string) ([]Projection, error)
}

// Problem is a refusal of a service, as the problem details of RFC 9457.
type Problem struct {
	Detail string `json:"detail"`
	Status int    `json:"status"` // of HTTP
	Title  string `json:"title"`  // Handler derives it from the status
}

func (p Problem) Error() string { return fmt.Sprintf("%d: %s", p.Status, p.Detail) }

// titled returns p with a title.
func (p Problem) titled() Problem {
	p.Title = strings.ToLower(http.StatusText(p.Status))
	return p
}

func badRequest(format string, values ...any) Problem {
	return Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(format, values...)}
}
