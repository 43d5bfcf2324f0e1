package cli

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
)

// group is what a service has parked for one reason.
type group struct {
	Service string    `json:"service"`
	Type    string    `json:"type"`
	Kind    string    `json:"kind"`
	Reason  string    `json:"reason"` // its first line, without the ids in it
	Events  int       `json:"events"`
	Oldest  time.Time `json:"oldest"`
	Example string    `json:"example"` // the id of the oldest
}

// uuid matches the ids in a reason, which would otherwise make each event a group of its own.
var uuid = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)

// withoutIDs returns the first line of a reason, with "…" for each id.
func withoutIDs(reason string) string {
	line, _, _ := strings.Cut(reason, "\n")
	return uuid.ReplaceAllString(line, "…")
}

// groupsOf groups parked events, the largest group first.
func groupsOf(parked []admin.Parked) []group {
	groups := []group{}
	at := map[group]int{} // by what makes a group
	for _, p := range parked {
		key := group{Service: p.Service, Type: p.Type, Kind: p.Kind, Reason: withoutIDs(p.Reason)}
		n, ok := at[key]
		if !ok {
			n = len(groups)
			at[key], groups = n, append(groups, key)
		}
		g := &groups[n]
		if g.Events++; g.Events == 1 || p.CreatedAt.Before(g.Oldest) {
			g.Oldest, g.Example = p.CreatedAt, p.ID
		}
	}
	slices.SortStableFunc(groups, func(a, b group) int { return cmp.Compare(b.Events, a.Events) })
	return groups
}

func groupsCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "groups", Short: "Count them by service, type and reason", Args: cobra.NoArgs,
		Example: "  " + e.App.Name + " parked groups",
		RunE: func(c *cobra.Command, _ []string) error {
			list := e.Client().Parked(c.Context(), 0)
			groups := groupsOf(list.Parked)
			document := map[string]any{"groups": groups, "missing": list.Missing}
			err := e.Print(document, func(t *Text) {
				if len(groups) == 0 {
					if len(list.Missing) == 0 {
						e.Notef("nothing is parked")
					}
					return
				}
				t.Table("EVENTS\tSERVICE\tTYPE\tOLDEST\tEXAMPLE\tREASON", func(row func(...any)) {
					for _, g := range groups {
						row(g.Events, g.Service, cmp.Or(g.Type, "-"), g.Oldest, g.Example,
							g.Reason)
					}
				})
				e.Notef("next: %s", e.App.nextForGroup(groups[0]))
			})
			return e.partial(list.Missing, err)
		},
	}
}

// nextForGroup is the command with which a person goes on with a group.
func (a App) nextForGroup(g group) string {
	if g.Kind == evidence {
		return a.Command("parked show " + g.Example)
	}
	longest := "" // part of the reason that all events of the group have
	for part := range strings.SplitSeq(g.Reason, "…") {
		if part = strings.TrimSpace(part); len(part) > len(longest) {
			longest = part
		}
	}
	return a.Command(fmt.Sprintf("parked redrive --service %s --parked-for '%s' --dry-run", g.Service,
		strings.ReplaceAll(longest, "'", `'\''`)))
}

// evidence is the kind of what can only be discarded.
const evidence = "evidence"

// maxRepairsShown is how many repairs are listed at most.
const maxRepairsShown = 100

// repairsCommand lists the record of repairs.
func repairsCommand(e *Env) *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "repairs", Short: "List what was redriven and discarded, by whom and why",
		Args: cobra.NoArgs, Example: "  " + e.App.Name + " parked repairs --limit 20",
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > maxRepairsShown {
				return usage(fmt.Errorf("--limit %d: must be 1 to %d", limit, maxRepairsShown))
			}
			client := e.Client()
			all, missing := admin.Collect(client.Services, func(service string) ([]admin.Repair, error) {
				page, err := client.Service(service).Repairs(c.Context(), 0, limit)
				return page.Repairs, err
			})
			slices.SortStableFunc(all, func(a, b admin.Repair) int { return b.At.Compare(a.At) })
			all = all[:min(limit, len(all))]
			document := map[string]any{"repairs": all, "missing": missing}
			err := e.Print(document, func(t *Text) {
				t.Table("AT\tSERVICE\tACTION\tID\tTYPE\tOPERATOR\tREASON", func(row func(...any)) {
					for _, r := range all {
						row(r.At, r.Service, r.Action, r.Parked, r.Type, r.Operator, r.Reason)
					}
				})
			})
			return e.partial(missing, err)
		},
	}
	c.Flags().IntVar(&limit, "limit", maxRepairsShown, "at most so many, the newest first")
	return c
}
