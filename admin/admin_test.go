package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/events"
)

const eventID = "0190b1c2-7d3e-7f00-8000-000000000001"

// fake is a service that answers with what it was called with.
type fake struct{ err error }

func (f fake) History(_ context.Context, subject string) ([]admin.Event, error) {
	return []admin.Event{{ID: eventID, Subject: subject}}, f.err
}

func (f fake) Waiting(_ context.Context, subject string) ([]admin.Waiting, error) {
	return []admin.Waiting{{ID: eventID, Type: subject, Place: admin.Held}}, f.err
}

func (f fake) Handled(_ context.Context, ids []string) (list []admin.Handled, err error) {
	for _, id := range ids {
		list = append(list, admin.Handled{ID: id})
	}
	return list, f.err
}

func (f fake) Published(_ context.Context, after int64, limit int) ([]admin.Published, error) {
	return []admin.Published{{Seq: after + int64(limit), Content: -1 << 60}}, f.err
}

func (f fake) Audit(context.Context) ([]admin.Finding, error) {
	return []admin.Finding{{Rule: "sums"}}, f.err
}

func (f fake) Parked(_ context.Context, after string, limit int) (admin.ParkedPage, error) {
	return admin.ParkedPage{Parked: []admin.Parked{{ID: after, Attempts: limit}}}, f.err
}

func (f fake) ParkedEvent(_ context.Context, id string) (admin.ParkedEvent, error) {
	return admin.ParkedEvent{Parked: admin.Parked{ID: id}, Exchange: "x",
		Attributes: map[string]any{"type": "a.b"}, Body: []byte("{")}, f.err
}

func (f fake) DryRun(_ context.Context, id string) (admin.DryRun, error) {
	return admin.DryRun{Error: id}, f.err
}

func (f fake) Redrive(_ context.Context, r admin.RepairRequest) (admin.Repaired, error) {
	return admin.Repaired{Done: r.IDs, Absent: []string{r.Operator, r.Reason}}, f.err
}

func (f fake) Discard(_ context.Context, r admin.RepairRequest) (admin.Repaired, error) {
	return admin.Repaired{Evidence: r.IDs, Absent: []string{r.Operator, r.Reason}}, f.err
}

func (f fake) Edit(_ context.Context, id string, r admin.EditRequest) (admin.ParkedEvent, error) {
	return admin.ParkedEvent{Parked: admin.Parked{ID: id, Reason: r.Operator + r.Reason + r.Was},
		Body: r.Body}, f.err
}

func (f fake) Load(context.Context) (admin.Load, error) {
	return admin.Load{Replica: "h/1", Published: 7, Waiting: admin.Backlog{Parked: 3},
		Breakers: []admin.Breaker{{Name: "provider", State: admin.Open, Opened: 2}}}, f.err
}

func (f fake) Event(_ context.Context, id string) (admin.Event, error) {
	return admin.Event{ID: id}, f.err
}

func (f fake) Repairs(_ context.Context, after int64, limit int) (admin.RepairPage, error) {
	return admin.RepairPage{Repairs: []admin.Repair{{ID: after, Parked: fmt.Sprint(limit)}}}, f.err
}

func (f fake) Replay(_ context.Context, r admin.ReplayRequest) (int64, error) {
	return int64(len(r.IDs)) + int64(r.AgoSeconds), f.err
}

func (f fake) Replays(_ context.Context, after int64, limit int) (admin.ReplayPage, error) {
	return admin.ReplayPage{Replays: []admin.Replay{{ID: after, Held: int64(limit)}}}, f.err
}

func (f fake) Held(_ context.Context, after int64, limit int) ([]admin.HeldEvent, error) {
	return []admin.HeldEvent{{Seq: after, Attempts: limit}}, f.err
}

func (f fake) Relay(context.Context) (admin.Relay, error) {
	return admin.Relay{Source: "window"}, f.err
}

func (f fake) UseSource(_ context.Context, source string) (admin.Relay, error) {
	return admin.Relay{Source: source}, f.err
}

func (f fake) Breakers(context.Context) ([]admin.Breaker, error) {
	return []admin.Breaker{{Name: "provider", State: admin.Open}}, f.err
}

func (f fake) Projections(context.Context) ([]admin.Projection, error) {
	return []admin.Projection{{Name: "all"}}, f.err
}

func (f fake) Rebuild(_ context.Context, name string) ([]admin.Projection, error) {
	return []admin.Projection{{Name: name}}, f.err
}

// serve returns a client of two services: one is served by a handler, and the other is away.
func serve(t *testing.T, s admin.Service) *admin.Client {
	t.Helper()
	here := httptest.NewServer(admin.Handler(s, func(err error) admin.Problem {
		return admin.Problem{Status: http.StatusServiceUnavailable, Detail: "because " + err.Error()}
	}))
	t.Cleanup(here.Close)
	away := httptest.NewServer(nil)
	away.Close()
	return &admin.Client{Services: []string{"away", "here"},
		Replicas: func(service string) ([]string, error) {
			return map[string][]string{"here": {here.URL}, "away": {away.URL}}[service], nil
		}}
}

// calls are all methods of a service, with what each returns as JSON.
func calls(s admin.Service) map[string]func(ctx context.Context) (any, error) {
	id := eventID
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return map[string]func(ctx context.Context) (any, error){
		"history":    func(ctx context.Context) (any, error) { return s.History(ctx, "a/b ü%") },
		"waiting":    func(ctx context.Context) (any, error) { return s.Waiting(ctx, "a/b ü%") },
		"handled":    func(ctx context.Context) (any, error) { return s.Handled(ctx, []string{id}) },
		"parked":     func(ctx context.Context) (any, error) { return s.Parked(ctx, "7&x", 9) },
		"all parked": func(ctx context.Context) (any, error) { return s.Parked(ctx, "", 1000) },
		"one":        func(ctx context.Context) (any, error) { return s.ParkedEvent(ctx, "sha256:0/1") },
		"dry run":    func(ctx context.Context) (any, error) { return s.DryRun(ctx, id) },
		"load":       func(ctx context.Context) (any, error) { return s.Load(ctx) },
		"event":      func(ctx context.Context) (any, error) { return s.Event(ctx, id) },
		"edit": func(ctx context.Context) (any, error) {
			return s.Edit(ctx, "sha256:0/1", admin.EditRequest{Operator: "ada", Reason: "a typo",
				Was: admin.Digest(nil), Body: []byte("{}")})
		},
		"repairs": func(ctx context.Context) (any, error) { return s.Repairs(ctx, 7, 9) },
		"redrive": func(ctx context.Context) (any, error) {
			return s.Redrive(ctx, admin.RepairRequest{IDs: []string{id}, Operator: "ada"})
		},
		"discard": func(ctx context.Context) (any, error) {
			return s.Discard(ctx, admin.RepairRequest{IDs: []string{"sha256:0/1"}, Operator: "ada",
				Reason: "a test"})
		},
		"replays":     func(ctx context.Context) (any, error) { return s.Replays(ctx, 7, 9) },
		"all replays": func(ctx context.Context) (any, error) { return s.Replays(ctx, 0, 100) },
		"held":        func(ctx context.Context) (any, error) { return s.Held(ctx, 7, 9) },
		"relay":       func(ctx context.Context) (any, error) { return s.Relay(ctx) },
		"use":         func(ctx context.Context) (any, error) { return s.UseSource(ctx, "stream") },
		"published":   func(ctx context.Context) (any, error) { return s.Published(ctx, 7, 3) },
		"audit":       func(ctx context.Context) (any, error) { return s.Audit(ctx) },
		"breakers":    func(ctx context.Context) (any, error) { return s.Breakers(ctx) },
		"projections": func(ctx context.Context) (any, error) { return s.Projections(ctx) },
		"rebuild":     func(ctx context.Context) (any, error) { return s.Rebuild(ctx, "a b") },
		"replay ids": func(ctx context.Context) (any, error) {
			return s.Replay(ctx, admin.ReplayRequest{IDs: []string{id}})
		},
		"replay since": func(ctx context.Context) (any, error) {
			return s.Replay(ctx, admin.ReplayRequest{Since: &since})
		},
		"replay ago": func(ctx context.Context) (any, error) {
			return s.Replay(ctx, admin.ReplayRequest{AgoSeconds: 60})
		},
	}
}

// A service that is called over HTTP answers as the service itself does, apart from its name, which
// the client adds.
func TestServiceOverHTTPIsTheService(t *testing.T) {
	t.Parallel()
	local, there := calls(fake{}), calls(serve(t, fake{}).Service("here"))
	for name, call := range local {
		var texts [2]string
		for i, f := range []func(context.Context) (any, error){call, there[name]} {
			answer, err := f(t.Context())
			data, failed := json.Marshal(answer)
			if err := errors.Join(err, failed); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			texts[i] = string(data)
		}
		if named := strings.ReplaceAll(texts[1], `"service":"here",`, ""); named != texts[0] {
			t.Errorf("%s: %s, want %s", name, texts[1], texts[0])
		}
	}
}

// A refusal arrives with its status and its words, and any other error as the problem that the
// service makes of it.
func TestErrorsKeepTheirStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err         error
		status      int
		unreachable bool
		text        string
	}{
		{fmt.Errorf("x: %w", admin.Problem{Status: 404, Detail: "no such thing"}), 404, false,
			"here answers 404: no such thing"},
		{admin.Problem{Status: 409, Detail: "busy"}, 409, false, "here answers 409: busy"},
		{errors.New("it is gone"), 503, true, "here answers 503: because it is gone"},
	} {
		for name, call := range calls(serve(t, fake{c.err}).Service("here")) {
			_, err := call(t.Context())
			var p admin.Problem
			if !errors.As(err, &p) || p.Status != c.status || err.Error() != c.text ||
				p.Title != strings.ToLower(http.StatusText(c.status)) ||
				admin.Unreachable(err) != c.unreachable {
				t.Errorf("%s: %v, %+v", name, err, p)
			}
		}
	}
}

// replica answers reads with its own breaker, as the replicas of one service do.
type replica struct {
	fake
	load admin.Load
}

func (r replica) Load(context.Context) (admin.Load, error)          { return r.load, nil }
func (r replica) Breakers(context.Context) ([]admin.Breaker, error) { return r.load.Breakers, nil }

// Every replica is asked. One that is away is named with its address, and a service without any as
// a whole. The numbers of breakers are added up, and an open one is not hidden by a closed one.
func TestEveryReplicaIsAsked(t *testing.T) {
	t.Parallel()
	var addresses []string
	for i, state := range []admin.BreakerState{admin.Closed, admin.Open, admin.HalfOpen} {
		handler := admin.Handler(replica{load: admin.Load{Replica: fmt.Sprint(i), Handled: int64(i),
			Breakers: []admin.Breaker{{Name: "provider", State: state, Opened: 1, Refused: 10,
				Failures: 2}}}},
			func(err error) admin.Problem { return admin.Problem{Detail: err.Error()} })
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		addresses = append(addresses, server.URL)
	}
	away := httptest.NewServer(nil)
	away.Close()
	c := admin.Client{Services: []string{"here", "gone"},
		Replicas: func(service string) ([]string, error) {
			if service == "gone" {
				return []string{away.URL}, nil
			}
			return append(addresses, away.URL), nil
		}}
	loads, missing := c.Loads(t.Context())
	if len(loads) != 3 || loads[2].Handled != 2 || loads[2].Service != "here" || len(missing) != 2 ||
		missing[0].Service != "here at "+away.URL || missing[1].Service != "gone" ||
		!admin.Unreachable(missing[1].Err) {
		t.Errorf("%+v, missing %+v", loads, missing)
	}
	breakers, missing := c.Breakers(t.Context())
	if len(breakers) != 1 || breakers[0].State != admin.Open || breakers[0].Opened != 3 ||
		breakers[0].Refused != 30 || breakers[0].Failures != 6 || breakers[0].Service != "here" ||
		len(missing) != 2 {
		t.Errorf("%+v, missing %+v", breakers, missing)
	}
}

// Requests that are wrong never reach the service.
func TestWrongRequestsAreRefused(t *testing.T) {
	t.Parallel()
	c := serve(t, fake{errors.New("it was called")})
	for _, r := range []struct{ method, path, body string }{
		{"GET", "parked?limit=0", ""}, {"GET", "parked?limit=1001", ""}, {"GET", "parked?limit=x", ""},
		{"GET", "replay?limit=101", ""}, {"GET", "replay?after=0", ""}, {"GET", "replay?after=x", ""},
		{"GET", "held?limit=101", ""}, {"GET", "held?after=x", ""},
		{"GET", "repairs?limit=101", ""}, {"GET", "repairs?after=x", ""},
		{"POST", "parked/redrive", `{}`}, {"POST", "parked/redrive", `{"ids":[],"operator":"ada"}`},
		{"POST", "parked/redrive", `{"ids":["1"]}`}, {"POST", "parked/redrive", `{"ids":[""]}`},
		{"POST", "parked/redrive", `{"ids":["1"],"operator":"ada","all":true}`},
		{"POST", "parked/redrive", `{"ids":["1"],"operator":"` + strings.Repeat("x", 201) + `"}`},
		{"POST", "parked/discard", `{"ids":["1"],"operator":"ada"}`},
		{"GET", "events/1", ""}, {"POST", "parked/1/edit", `{"operator":"ada","reason":"x"}`},
		{"POST", "parked/1/edit", `{"operator":"ada","body":"e30="}`},
		{"POST", "parked/1/edit", `{"reason":"x","body":"e30="}`},
		{"POST", "parked/1/edit", `{"operator":"ada","reason":"x","body":"` +
			strings.Repeat("A", 100<<10) + `"}`},
		{"POST", "handled", `{"ids":["1"]}`}, {"POST", "handled", `[]`},
		{"POST", "replay", `{}`}, {"POST", "replay", `{"ago_seconds":-1}`},
		{"POST", "replay", `{"ago_seconds":1e12}`}, {"POST", "replay", `{"all":true}`},
		{"POST", "replay", `{"since":"2026-01-02T03:04:05Z","ago_seconds":1}`},
		{"POST", "relay", `{"source":"river"}`}, {"POST", "relay", `{}`},
		{"POST", "relay", `{"source":"window","x":"` + strings.Repeat("x", 128<<10) + `"}`},
	} {
		var body any
		if r.body != "" {
			body = json.RawMessage(r.body)
		}
		err := c.Call(t.Context(), "here", r.method, "/admin/"+r.path, nil, body, nil)
		var p admin.Problem
		if !errors.As(err, &p) || p.Status != http.StatusBadRequest {
			t.Errorf("%s %s %.80s: %v", r.method, r.path, r.body, err)
		}
	}
}

// Of several services the one that is away is named, and hides nothing of the others.
func TestServiceThatIsAwayIsMissing(t *testing.T) {
	t.Parallel()
	c := serve(t, fake{})
	parked, trace := c.Parked(t.Context(), 1), c.Trace(t.Context(), "s")
	for name, missing := range map[string][]admin.Missing{"parked": parked.Missing,
		"trace": trace.Missing} {
		if len(missing) != 1 || missing[0].Service != "away" || !admin.Unreachable(missing[0].Err) ||
			missing[0].Error != missing[0].Err.Error() {
			t.Errorf("%s: missing %+v", name, missing)
		}
	}
	if len(parked.Parked) != 1 || parked.Parked[0].Service != "here" || len(trace.Steps) != 1 ||
		trace.Steps[0].Service != "here" || len(trace.Steps[0].Handled) != 1 {
		t.Errorf("parked %+v, trace %+v", parked, trace)
	}
	c.Replicas = func(string) ([]string, error) { return nil, nil }
	if err := c.Call(t.Context(), "here", "GET", "/", nil, nil, nil); !admin.Unreachable(err) {
		t.Errorf("without an address: %v", err)
	}
}

// More ids than a request may have are sent in several.
func TestManyIDsAreSentInParts(t *testing.T) {
	t.Parallel()
	ids := make([]string, 2500)
	for i := range ids {
		ids[i] = events.NewID()
	}
	handled, err := serve(t, fake{}).Service("here").Handled(t.Context(), ids)
	if err != nil || len(handled) != len(ids) || handled[2400].ID != ids[2400] {
		t.Errorf("%d of %d, %v", len(handled), len(ids), err)
	}
}
