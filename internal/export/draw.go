package export

import (
	"fmt"
	"strings"

	"github.com/quadrille-go/quadrille/internal/schema"
)

// dot draws the topology for Graphviz, as Topology.Mermaid does: a dashed arrow is an event that
// makes its subscriber undo something.
func (s Source) dot() string {
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %q {\n    rankdir=LR\n    node [shape=box, style=rounded]\n",
		s.Topology.Name)
	for _, service := range s.Topology.Services {
		fmt.Fprintf(&b, "    %q\n", service.Name)
	}
	for _, service := range s.Topology.Services {
		for _, eventType := range service.Publishes() {
			for _, subscriber := range s.Topology.Services {
				for _, r := range subscriber.Reacts {
					if r.Handles != eventType {
						continue
					}
					style := "solid"
					if r.Undoes != "" {
						style = "dashed"
					}
					fmt.Fprintf(&b, "    %q -> %q [label=%q, style=%s]\n", service.Name, subscriber.Name,
						eventType+": "+r.Does, style)
				}
			}
		}
	}
	return b.String() + "}\n"
}

// events lists every event in Markdown: who publishes it, who handles it and how, and its fields.
func (s Source) events() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Events of %s\n\nMade by `topology export -o events` of what the services run "+
		"on. Do not edit it.\n", s.Topology.Name)
	schemas := schema.All(s.Topology, s.Catalogue)
	for _, eventType := range s.Topology.Types() {
		owner, _ := s.Topology.Publisher(eventType)
		fmt.Fprintf(&b, "\n## %s\n\nPublished by %s.\n", eventType, owner)
		for _, service := range s.Topology.Services {
			for _, r := range service.Reacts {
				if r.Handles == eventType {
					fmt.Fprintf(&b, "- %s: %s%s\n", service.Name, r.Does, consequence(r.Undoes, r.Publishes))
				}
			}
		}
		if known := schemas[eventType]; known != nil {
			fmt.Fprintf(&b, "\nSchema `%s`:\n\n| field | type | |\n|---|---|---|\n", known.ID)
			fields(&b, "", known)
		}
	}
	return b.String()
}

func consequence(undoes string, publishes []string) (text string) {
	if undoes != "" {
		text = " (undoes: " + undoes + ")"
	}
	if len(publishes) > 0 {
		text += " → " + strings.Join(publishes, ", ")
	}
	return text
}

func fields(b *strings.Builder, path string, of *schema.Schema) {
	if of.Properties == nil {
		return
	}
	required := map[string]bool{}
	for _, name := range of.Required {
		required[name] = true
	}
	for p := of.Properties.Oldest(); p != nil; p = p.Next() {
		note := ""
		if !required[p.Key] {
			note = "optional"
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s |\n", path, p.Key, p.Value.Type, note)
		fields(b, path+p.Key+".", p.Value)
		if p.Value.Items != nil {
			fields(b, path+p.Key+"[].", p.Value.Items)
		}
	}
}
