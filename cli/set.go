package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// set changes fields of a JSON object by their paths. A value that is JSON is taken as such, any
// other as a string.
func set(data []byte, sets []string) ([]byte, error) {
	if len(sets) == 0 {
		return data, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // amounts must not go through floating point
	var root any
	if err := decoder.Decode(&root); err != nil {
		return nil, fmt.Errorf("--set: the payload is not JSON: %w", err)
	}
	for _, s := range sets {
		path, text, ok := strings.Cut(s, "=")
		if !ok || path == "" {
			return nil, fmt.Errorf("--set %q: want path=value", s)
		}
		var value any = text
		if json.Valid([]byte(text)) {
			value = json.RawMessage(text)
		}
		if err := setPath(root, strings.Split(path, "."), value); err != nil {
			return nil, fmt.Errorf("--set %s: %w", path, err)
		}
	}
	return json.Marshal(root)
}

// hasPath reports whether a JSON document has a value at a path, as set would change it.
func hasPath(data []byte, path string) bool {
	var node any
	if json.Unmarshal(data, &node) != nil {
		return false
	}
	for name := range strings.SplitSeq(path, ".") {
		switch n := node.(type) {
		case map[string]any:
			value, ok := n[name]
			if !ok {
				return false
			}
			node = value
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(n) {
				return false
			}
			node = n[i]
		default:
			return false
		}
	}
	return true
}

func setPath(node any, path []string, value any) error {
	switch n := node.(type) {
	case map[string]any:
		if len(path) == 1 {
			n[path[0]] = value
			return nil
		}
		return setPath(n[path[0]], path[1:], value)
	case []any:
		i, err := strconv.Atoi(path[0])
		if err != nil || i < 0 || i >= len(n) {
			return fmt.Errorf("%q is no index of a list of %d", path[0], len(n))
		}
		if len(path) == 1 {
			n[i] = value
			return nil
		}
		return setPath(n[i], path[1:], value)
	}
	return fmt.Errorf("there is no field %q", path[0])
}
