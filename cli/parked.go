package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Parked is a parked event as the command line lists it.
type Parked struct {
	Service   string    `json:"service"`
	ID        string    `json:"id"`
	Type      string    `json:"type"`
	Reason    string    `json:"reason"`
	Attempts  int       `json:"attempts"`
	Owner     string    `json:"owner"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// ListParked asks every service for what waits for a person.
func (e *Env) ListParked(ctx context.Context) ([]Parked, error) {
	all := []Parked{}
	for _, s := range e.App.Topology.Services {
		var list []Parked
		if err := e.Call(ctx, s.Name, "GET", "/admin/parked", nil, nil, &list); err != nil {
			return nil, err
		}
		for _, p := range list {
			p.Service = s.Name
			all = append(all, p)
		}
	}
	return all, nil
}

func (e *Env) parked() *cobra.Command {
	group := &cobra.Command{Use: "parked", Short: "Events that wait for a person"}
	list := &cobra.Command{
		Use: "list", Short: "List them, of all services", Example: "  " + e.App.Name + " parked list -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := e.ListParked(c.Context())
			if err != nil {
				return err
			}
			return e.Print(all, func(t *Text) { e.printParked(t, all) })
		},
	}
	show := &cobra.Command{
		Use: "show ID", Short: "Show one with its envelope and its bytes", Args: cobra.ExactArgs(1),
		Example: "  " + e.App.Name + " parked show sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f0",
		RunE:    func(c *cobra.Command, args []string) error { return e.showParked(c.Context(), args[0]) },
	}
	try := &cobra.Command{
		Use: "try ID", Short: "Try what would come of one now, and roll it back", Args: cobra.ExactArgs(1),
		Example: "  " + e.App.Name + " parked try 0190b1c2-7d3e-7f00-8000-000000000001",
		RunE:    func(c *cobra.Command, args []string) error { return e.tryParked(c.Context(), args[0]) },
	}
	group.AddCommand(list, show, try)
	return group
}

func (e *Env) printParked(t *Text, all []Parked) {
	if len(all) == 0 {
		e.Notef("nothing is parked")
		return
	}
	t.Table("SERVICE\tID\tTYPE\tATTEMPTS\tREASON", func(row func(...any)) {
		for _, p := range all {
			line, _, _ := strings.Cut(p.Reason, "\n")
			row(p.Service, p.ID, cmp.Or(p.Type, "-"), p.Attempts, line)
		}
	})
}

func (e *Env) showParked(ctx context.Context, id string) error {
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
			return err
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
	return Error{Code: ExitNotFound, Err: fmt.Errorf("nothing is parked under %q", id), Next: "see: " + e.App.Name + " parked list"}
}

// tryParked asks each service for a dry run, until one has it.
func (e *Env) tryParked(ctx context.Context, id string) error {
	for _, s := range e.App.Topology.Services {
		var tried struct {
			Error string `json:"error,omitempty"`
			Says  []struct {
				Type string          `json:"type"`
				Data json.RawMessage `json:"data"`
			} `json:"says"`
		}
		err := e.Call(ctx, s.Name, "POST", "/admin/parked/"+url.PathEscape(id)+"/try", nil, nil, &tried)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		err = e.Print(tried, func(t *Text) {
			if tried.Error == "" {
				t.Printf("%s would handle it and say %d events\n", s.Name, len(tried.Says))
			}
			for _, said := range tried.Says {
				t.Printf("  %s %s\n", said.Type, said.Data)
			}
		})
		if err == nil && tried.Error != "" {
			err = Error{Code: ExitProblems, Err: fmt.Errorf("%s would fail: %s", s.Name, tried.Error)}
		}
		return err
	}
	return Error{Code: ExitNotFound, Err: fmt.Errorf("nothing is parked under %q", id), Next: "see: " + e.App.Name + " parked list"}
}
