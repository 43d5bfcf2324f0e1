// Package export writes a topology in the formats of other tools: definitions of RabbitMQ, objects
// of its operator for Kubernetes, AsyncAPI, diagrams, permissions, and the list of events.
//
// It is a pure function of the topology and the payloads that the program runs on, so what it
// writes is what is declared and published.
package export

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/schema"
	"github.com/quadrille-go/quadrille/topology"
)

// Source is what is exported.
type Source struct {
	Topology  topology.Topology
	Catalogue events.Catalogue
	Vhost     string // on the broker
	Cluster   string // the name of the RabbitmqCluster in Kubernetes
}

// Formats returns the names of the formats, sorted.
func Formats() []string { return slices.Sorted(maps.Keys(formats())) }

func formats() map[string]func(s Source) (string, error) {
	return map[string]func(s Source) (string, error){
		"definitions": func(s Source) (string, error) { return indented(s.definitions()) },
		"k8s":         func(s Source) (string, error) { return indented(s.kubernetes()) },
		"asyncapi":    func(s Source) (string, error) { return indented(s.asyncAPI()) },
		"schemas": func(s Source) (string, error) {
			return indented(schema.All(s.Topology, s.Catalogue))
		},
		"mermaid":     func(s Source) (string, error) { return s.Topology.Mermaid(), nil },
		"dot":         func(s Source) (string, error) { return s.dot(), nil },
		"permissions": func(s Source) (string, error) { return s.permissions(), nil },
		"events":      func(s Source) (string, error) { return s.events(), nil },
	}
}

// Write returns the topology in a format.
func Write(s Source, format string) (string, error) {
	write, ok := formats()[format]
	if !ok {
		return "", fmt.Errorf("-o %q: want one of %s", format, strings.Join(Formats(), ", "))
	}
	if err := s.Topology.Validate(); err != nil {
		return "", fmt.Errorf("export topology: %w", err)
	}
	text, err := write(s)
	if err != nil {
		return "", fmt.Errorf("export topology as %s: %w", format, err)
	}
	return text, nil
}

func indented(document any) (string, error) {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(document)
	return b.String(), err
}
