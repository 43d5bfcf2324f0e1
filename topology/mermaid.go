package topology

import (
	"fmt"
	"strings"
)

// Mermaid draws the topology as a Mermaid flowchart: an arrow is an event, a dashed arrow one that
// makes its subscriber undo something.
func (t Topology) Mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for _, s := range t.Services {
		fmt.Fprintf(&b, "    %s([%s])\n", s.Name, s.Name)
	}
	for _, s := range t.Services {
		for _, eventType := range s.Publishes() {
			for _, subscriber := range t.Services {
				for _, r := range subscriber.Reacts {
					if r.Handles != eventType {
						continue
					}
					arrow := "-->"
					if r.Undoes != "" {
						arrow = "-.->"
					}
					fmt.Fprintf(&b, "    %s %s|%s: %s| %s\n", s.Name, arrow, eventType, r.Does, subscriber.Name)
				}
			}
		}
	}
	return b.String()
}
