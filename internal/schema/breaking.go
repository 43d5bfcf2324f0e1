package schema

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Breaking returns why a consumer of the published schema cannot read what the current one
// describes, or a consumer of the current one what was published before. An added optional field
// breaks neither.
func Breaking(published, current []byte) (reasons []string, err error) {
	var old, now node
	for data, into := range map[*[]byte]*node{&published: &old, &current: &now} {
		if err := json.Unmarshal(*data, into); err != nil {
			return nil, fmt.Errorf("compare schemas: %w", err)
		}
	}
	return breaking("", old, now), nil
}

// node is what Breaking compares of a schema.
type node struct {
	Type       string          `json:"type"`
	Format     string          `json:"format"`
	Properties map[string]node `json:"properties"`
	Required   []string        `json:"required"`
	Items      *node           `json:"items"`
	Additional *node           `json:"additionalProperties"`
}

// UnmarshalJSON also accepts true, which is how a schema without constraints may be written.
func (n *node) UnmarshalJSON(data []byte) error {
	if string(data) == "true" || string(data) == "false" {
		n.Type = string(data)
		return nil
	}
	type plain node
	return json.Unmarshal(data, (*plain)(n))
}

func breaking(path string, old, now node) (reasons []string) {
	if old.Type != now.Type || old.Format != now.Format {
		return []string{fmt.Sprintf("%s: its type was %s and is %s", name(path), old.kind(), now.kind())}
	}
	for field, was := range old.Properties {
		at := path + "." + field
		is, exists := now.Properties[field]
		if !exists {
			reasons = append(reasons, name(at)+": it is removed or renamed")
			continue
		}
		reasons = append(reasons, breaking(at, was, is)...)
		if slices.Contains(old.Required, field) && !slices.Contains(now.Required, field) {
			reasons = append(reasons, name(at)+": it was always there and is optional now")
		}
	}
	for _, field := range now.Required {
		if !slices.Contains(old.Required, field) {
			reasons = append(reasons, name(path+"."+field)+
				": it is required, and events of before do not have it for certain")
		}
	}
	for _, pair := range [][2]*node{{old.Items, now.Items}, {old.Additional, now.Additional}} {
		if pair[0] != nil && pair[1] != nil {
			reasons = append(reasons, breaking(path+"[]", *pair[0], *pair[1])...)
		}
	}
	slices.Sort(reasons)
	return reasons
}

func name(path string) string {
	if path == "" {
		return "the payload"
	}
	return path[1:]
}

func (n node) kind() string {
	switch {
	case n.Type == "":
		return "any"
	case n.Format != "":
		return n.Type + " (" + n.Format + ")"
	}
	return n.Type
}
