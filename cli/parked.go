package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

// Parked is something that one service has parked.
type Parked struct {
	Service string `json:"service"`
	admin.Parked
}

// maxParkedPage is how many parked events of one service one request lists.
const maxParkedPage = 1000

// ParkedList is what the services that answer have parked.
type ParkedList struct {
	Parked  []Parked  `json:"parked"`
	Missing []Missing `json:"missing"`
	More    []string  `json:"more,omitempty"` // services that have parked more than --limit
}

// ListParked collects from every service what waits for a person, all pages of it, or at most limit
// events of each unless that is 0.
func (e *Env) ListParked(ctx context.Context, limit int) (all ParkedList) {
	all.Parked = []Parked{}
	found := map[string][]Parked{}
	more := map[string]bool{}
	var mu sync.Mutex
	all.Missing = e.each(func(service string) error {
		list, rest, err := e.parkedOf(ctx, service, limit)
		mu.Lock()
		defer mu.Unlock()
		found[service], more[service] = list, rest
		return err
	})
	for _, s := range e.App.Topology.Services {
		all.Parked = append(all.Parked, found[s.Name]...)
		if more[s.Name] {
			all.More = append(all.More, s.Name)
		}
	}
	return all
}

func (e *Env) parkedOf(ctx context.Context, service string, limit int) (list []Parked, more bool,
	err error) {
	for after := ""; ; {
		size := maxParkedPage
		if limit > 0 {
			size = min(size, limit-len(list))
		}
		var page admin.ParkedPage
		path := fmt.Sprintf("/admin/parked?limit=%d&after=%s", size, url.QueryEscape(after))
		if err := e.Call(ctx, service, "GET", path, nil, nil, &page); err != nil {
			return nil, false, err
		}
		for _, p := range page.Parked {
			list = append(list, Parked{service, p})
		}
		after = page.Next
		if done := limit > 0 && len(list) >= limit; after == "" || done {
			return list, after != "", nil
		}
	}
}

func (e *Env) parked() *cobra.Command {
	group := &cobra.Command{Use: "parked", Short: "Events that wait for a person"}
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List them, of all services", Example: "  " + e.App.Name +
			" parked list -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 0 {
				return usage(fmt.Errorf("--limit %d: must not be negative", limit))
			}
			all := e.ListParked(c.Context(), limit)
			if len(all.More) > 0 {
				e.Notef("more is parked at %s: use a greater --limit, or 0 for all",
					strings.Join(all.More, ", "))
			}
			return e.partial(all.Missing, e.Print(all, func(t *Text) { e.printParked(t, all) }))
		},
	}
	list.Flags().IntVar(&limit, "limit", 0, "at most so many of each service (default: all)")
	show := &cobra.Command{
		Use: "show ID", Short: "Show one with its envelope and its bytes", Args: cobra.ExactArgs(1),
		Example: "  " + e.App.Name + " parked show sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f0",
		RunE: func(c *cobra.Command, args []string) error {
			return e.showParked(c.Context(),
				args[0])
		},
	}
	try := &cobra.Command{
		Use: "dry-run ID", Short: "Handle one, show what would happen, and roll it back",
		Args:    cobra.ExactArgs(1),
		Example: "  " + e.App.Name + " parked dry-run 0190b1c2-7d3e-7f00-8000-000000000001",
		RunE:    func(c *cobra.Command, args []string) error { return e.tryParked(c.Context(), args[0]) },
	}
	group.AddCommand(list, show, try)
	return group
}

func (e *Env) printParked(t *Text, all ParkedList) {
	if len(all.Parked) == 0 {
		if len(all.Missing) == 0 {
			e.Notef("nothing is parked")
		}
		return
	}
	t.Table("SERVICE\tID\tTYPE\tBYTES\tATTEMPTS\tREASON", func(row func(...any)) {
		for _, p := range all.Parked {
			line, _, _ := strings.Cut(p.Reason, "\n")
			row(p.Service, p.ID, cmp.Or(p.Type, "-"), p.Size, p.Attempts, line)
		}
	})
}

func (e *Env) showParked(ctx context.Context, id string) error {
	var missing []Missing
	for _, s := range e.App.Topology.Services {
		var found struct {
			Parked
			Exchange   string         `json:"exchange"`
			RoutingKey string         `json:"routing_key"`
			Attributes map[string]any `json:"attributes"`
			Body       []byte         `json:"body"`
		}
		err := e.Call(ctx, s.Name, "GET", "/admin/parked/"+url.PathEscape(id), nil, nil, &found)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			missing = append(missing, NewMissing(s.Name, err))
			continue
		}
		found.Service = s.Name
		return e.Print(found, func(t *Text) {
			t.Printf("%s parked %s %s at %s after %d attempts\nthrough %s under %s\n", s.Name,
				cmp.Or(found.Type, "something"), found.ID, found.UpdatedAt.Format(time.RFC3339),
				found.Attempts, found.Exchange, found.RoutingKey)
			t.Lines("  ", found.Reason)
			t.Printf("\n%v\n\n", found.Attributes)
			t.Lines("  ", string(found.Body))
		})
	}
	return e.notParked(id, missing)
}

// tryParked requests a dry run from each service, until one has the event.
func (e *Env) tryParked(ctx context.Context, id string) error {
	var missing []Missing
	for _, s := range e.App.Topology.Services {
		var result admin.DryRun
		err := e.Call(ctx, s.Name, "POST", "/admin/parked/"+url.PathEscape(id)+"/dry-run", nil, nil,
			&result)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			missing = append(missing, NewMissing(s.Name, err))
			continue
		}
		err = e.Print(result, func(t *Text) {
			if result.Error == "" {
				t.Printf("%s would handle it, with %d effects\n", s.Name, len(result.Publishes))
			}
			for _, e := range result.Publishes {
				kind := "publish"
				switch {
				case e.Call != nil:
					kind = "call"
				case e.Due != nil:
					kind = "schedule"
				}
				t.Printf("  %s %s %s\n", kind, e.Type, e.Data)
			}
		})
		if err == nil && result.Error != "" {
			err = Error{Code: ExitProblems, Err: fmt.Errorf("%s would fail: %s", s.Name, result.Error)}
		}
		return err
	}
	return e.notParked(id, missing)
}

// notParked is the error when no service that answers has parked an event.
func (e *Env) notParked(id string, missing []Missing) error {
	if len(missing) > 0 {
		return e.partial(missing, nil)
	}
	return Error{Code: ExitNotFound, Err: fmt.Errorf("nothing is parked under %q", id), Next: "see: " +
		e.App.Name + " parked list"}
}
