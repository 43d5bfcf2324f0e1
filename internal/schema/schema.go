// Package schema makes JSON Schemas of payloads, from the Go types that services run on, and tells
// which change of a published schema is breaking.
//
// The schemas describe what is on the wire: a consumer tolerates fields that it does not know, so
// additional properties are allowed.
package schema

import (
	"encoding/json"
	"fmt"

	"github.com/invopop/jsonschema"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/topology"
)

// Schema is a JSON Schema, with the parts that a payload's type can have. The order of the
// properties is that of the fields.
type Schema = jsonschema.Schema

// Of returns the schema of a payload. Its id is the dataschema of the event.
func Of(t topology.Topology, p events.Payload) *Schema {
	r := jsonschema.Reflector{DoNotReference: true, ExpandedStruct: true, Anonymous: true,
		AllowAdditionalProperties: true}
	s := r.Reflect(p)
	s.ID = jsonschema.ID(fmt.Sprintf("%s%s:%d", t.SchemaPrefix(), p.EventType(), major(p)))
	s.Title = p.EventType()
	return s
}

// All returns the schemas of the events of a topology whose payloads are known, by their types.
func All(t topology.Topology, c events.Catalogue) map[string]*Schema {
	all := map[string]*Schema{}
	for _, eventType := range t.Types() {
		if p, ok := c.Sample(eventType); ok {
			all[eventType] = Of(t, p)
		}
	}
	return all
}

// Files returns the schemas as files: their names, such as order.placed.v1.json, and contents.
func Files(t topology.Topology, c events.Catalogue) (map[string][]byte, error) {
	files := map[string][]byte{}
	for eventType, s := range All(t, c) {
		p, _ := c.Sample(eventType)
		data, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("schema of %s: %w", eventType, err)
		}
		files[fmt.Sprintf("%s.v%d.json", eventType, major(p))] = append(data, '\n')
	}
	return files, nil
}

func major(p events.Payload) int {
	if v, ok := p.(interface{ Major() int }); ok {
		return v.Major()
	}
	return 1
}
